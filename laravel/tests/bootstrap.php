<?php

/* The application that the tests of the whole way run too: real routes and controllers, and no Composer needed. */

// Another source of the package, to see what a test finds there: `EMBUDO_SOURCE=<folder> phpunit …`.
if ($source = getenv('EMBUDO_SOURCE')) {
    spl_autoload_register(static function (string $class) use ($source): void {
        $file = $source.'/'.str_replace('\\', '/', substr($class, strlen('Embudo\\Laravel\\'))).'.php';
        if (strpos($class, 'Embudo\\Laravel\\') === 0 && is_file($file)) {
            require $file;
        }
    });
}
require __DIR__.'/../../tests/laravel-app/bootstrap/autoload.php';
require __DIR__.'/TestCase.php';
