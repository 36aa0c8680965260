<?php

/* The front controller of the measurement: the application of the tests, as it is or with a new application's middleware. */

use Illuminate\Contracts\Http\Kernel;
use Illuminate\Http\Request;

require __DIR__.'/../tests/source.php';
$app = require __DIR__.'/../../tests/laravel-app/bootstrap/app.php';
if (method_exists($app, 'dontMergeFrameworkConfiguration')) {
    $app->dontMergeFrameworkConfiguration();
}
$kernel = $app->make(Kernel::class);
if (getenv('EMBUDO_MIDDLEWARE') === 'new') {
    $names = [
        'Illuminate\Foundation\Http\Middleware\InvokeDeferredCallbacks',
        'Illuminate\Http\Middleware\TrustProxies',
        'Illuminate\Foundation\Http\Middleware\PreventRequestsDuringMaintenance',
        'Illuminate\Foundation\Http\Middleware\TrimStrings',
    ];
    foreach (array_filter($names, 'class_exists') as $name) {
        $kernel->prependMiddleware($name);
    }
}
if (PHP_SAPI === 'cli') {
    return $app;
}
$request = Request::capture();
$response = $kernel->handle($request);
$response->send();
$kernel->terminate($request, $response);
