<?php

namespace Embudo\Laravel\Tests;

use Illuminate\Contracts\Console\Kernel;
use Illuminate\Filesystem\Filesystem;
use Illuminate\Foundation\PackageManifest;
use Illuminate\Support\Facades\Route;

final class RoutesTest extends TestCase
{
    public function testABatchRouteOfTheApplicationsOwnStays(): void
    {
        $this->with(static fn () => Route::post('api/qr/batch', static fn () => ['mine' => true]));
        $this->batch([self::qr(1)])->assertExactJson(['mine' => true]);
        $this->postJson('/api/whatsapp/status/batch', [])->assertStatus(422);
    }

    public function testWithoutASingleRouteThereIsNoBatchRoute(): void
    {
        $this->postJson('/qr/batch', ['qrs' => [self::qr(1)]])->assertNotFound();
        $this->with(static fn () => Route::post('qr', static fn () => []));
        $this->postJson('/qr/batch', ['qrs' => [self::qr(1)]])->assertJson(['processed' => 1]);
    }

    public function testTheConfigurationNamesOtherRoutesAndPrefixes(): void
    {
        $this->with(static function ($app): void {
            $app['config']->set('embudo.prefixes', ['v2']);
            $app['config']->set('embudo.routes', [['single' => 'code', 'batch' => 'codes', 'field' => 'list']]);
            Route::post('v2/code', static fn () => []);
        });
        $this->postJson('/v2/codes', ['list' => [self::qr(1)]])->assertJson(['processed' => 1]);
        $this->batch([self::qr(1)])->assertNotFound();
    }

    public function testItCanBeTurnedOff(): void
    {
        $this->with(static fn ($app) => $app['config']->set('embudo.enabled', false));
        $this->batch([self::qr(1)])->assertNotFound();
    }

    public function testCachedRoutesHaveTheBatchRoutes(): void
    {
        $kernel = $this->app->make(Kernel::class);
        self::assertSame(0, $kernel->call('route:cache'), $kernel->output());
        $this->app = $this->newApplication();
        self::assertTrue($this->app->routesAreCached());
        $this->batch([self::qr(1), self::qr(2)])->assertJson(['processed' => 2]);
    }

    public function testLaravelDiscoversIt(): void
    {
        $files = new Filesystem();
        $base = $this->app->storagePath();
        $files->makeDirectory("{$base}/vendor/composer", 0700, true);
        $package = json_decode($files->get(__DIR__.'/../composer.json'), true);
        $files->put("{$base}/vendor/composer/installed.json", json_encode(['packages' => [$package]]));
        $manifest = new PackageManifest($files, $base, "{$base}/discovered.php");
        self::assertSame([\Embudo\Laravel\EmbudoServiceProvider::class], $manifest->providers());
        self::assertTrue(class_exists($manifest->providers()[0]));
    }

    public function testTheConfigurationCanBePublished(): void
    {
        $paths = \Embudo\Laravel\EmbudoServiceProvider::pathsToPublish(null, 'embudo-config');
        self::assertSame(config('embudo'), require array_key_first($paths));
        self::assertSame([config_path('embudo.php')], array_values($paths));
    }
}
