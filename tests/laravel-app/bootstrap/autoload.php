<?php

/*
 * Class loading without Composer: Laravel as the distribution packages it, this application by its folders, and
 * the package from the repository where EMBUDO_PACKAGE says so.
 */

$illuminate = getenv('ILLUMINATE_AUTOLOAD') ?: 'Illuminate/autoload.php';

require_once $illuminate;

spl_autoload_register(static function (string $class): void {
    $folders = [
        'App\\' => __DIR__.'/../app/',
        'Embudo\\Laravel\\' => __DIR__.'/../../../laravel/src/',
    ];
    foreach ($folders as $namespace => $folder) {
        if (strpos($class, $namespace) !== 0) {
            continue;
        }
        $file = $folder.str_replace('\\', '/', substr($class, strlen($namespace))).'.php';
        if (is_file($file)) {
            require $file;
        }
    }
});
