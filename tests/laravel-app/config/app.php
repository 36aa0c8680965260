<?php

/* Only what an API needs: no cookies, no sessions, no mail. */

$providers = [
    Illuminate\Auth\AuthServiceProvider::class,
    Illuminate\Bus\BusServiceProvider::class,
    Illuminate\Cache\CacheServiceProvider::class,
    Illuminate\Foundation\Providers\ConsoleSupportServiceProvider::class,
    Illuminate\Database\DatabaseServiceProvider::class,
    Illuminate\Encryption\EncryptionServiceProvider::class,
    Illuminate\Filesystem\FilesystemServiceProvider::class,
    Illuminate\Foundation\Providers\FoundationServiceProvider::class,
    Illuminate\Hashing\HashServiceProvider::class,
    Illuminate\Queue\QueueServiceProvider::class,
    Illuminate\Translation\TranslationServiceProvider::class,
    Illuminate\Validation\ValidationServiceProvider::class,
    Illuminate\View\ViewServiceProvider::class,
    App\Providers\RouteServiceProvider::class,
];

/* There is no Composer here, which would have discovered it. */
if (env('EMBUDO_PACKAGE', false)) {
    $providers[] = Embudo\Laravel\EmbudoServiceProvider::class;
}

return [
    'name' => 'Embudo test application',
    'env' => env('APP_ENV', 'production'),
    'debug' => false,
    'url' => 'http://localhost',
    'timezone' => 'UTC',
    'locale' => 'en',
    'fallback_locale' => 'en',
    // Nothing is encrypted; Laravel wants a key of this length all the same.
    'key' => str_repeat('0', 32),
    'cipher' => 'AES-256-CBC',
    'providers' => $providers,
    'aliases' => [],
    // Whose routes these are: the project's own, or a panel's.
    'application' => env('EMBUDO_APPLICATION', 'api'),
    // Requests a minute that throttle:api lets through; 0 takes the throttle away.
    'throttle_per_minute' => (int) env('EMBUDO_THROTTLE', 0),
];
