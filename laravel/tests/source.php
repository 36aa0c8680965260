<?php

/* Another source of the package, to see what a test or a measurement finds there: `EMBUDO_SOURCE=<folder> phpunit …`. */

if ($source = getenv('EMBUDO_SOURCE')) {
    spl_autoload_register(static function (string $class) use ($source): void {
        $file = $source.'/'.str_replace('\\', '/', substr($class, strlen('Embudo\\Laravel\\'))).'.php';
        if (strpos($class, 'Embudo\\Laravel\\') === 0 && is_file($file)) {
            require $file;
        }
    });
}
