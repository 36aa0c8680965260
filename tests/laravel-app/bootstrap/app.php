<?php

/*
 * The application. What it writes goes to EMBUDO_STORAGE, so that any number of them run from this one folder, side
 * by side. Laravel takes the places of its caches from APP_CONFIG_CACHE, APP_ROUTES_CACHE and their like.
 */

use Illuminate\Contracts\Console\Kernel as ConsoleKernel;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Http\Kernel as HttpKernel;
use Illuminate\Foundation\Application;

require_once __DIR__.'/autoload.php';

$app = new Application(dirname(__DIR__));
$app->useStoragePath(getenv('EMBUDO_STORAGE') ?: sys_get_temp_dir());

$app->singleton(HttpKernel::class, App\Http\Kernel::class);
$app->singleton(ConsoleKernel::class, Illuminate\Foundation\Console\Kernel::class);
$app->singleton(ExceptionHandler::class, Illuminate\Foundation\Exceptions\Handler::class);

return $app;
