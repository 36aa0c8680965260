<?php

namespace Embudo\Laravel\Tests;

use Closure;
use Illuminate\Contracts\Console\Kernel;
use Illuminate\Filesystem\Filesystem;
use Illuminate\Foundation\Application;
use Illuminate\Foundation\Testing\TestCase as LaravelTestCase;
use Illuminate\Support\Str;
use Illuminate\Testing\TestResponse;

abstract class TestCase extends LaravelTestCase
{
    /** What a test changes in the application, once it has its own routes and before it has the batch routes. */
    protected ?Closure $changes = null;

    private string $storage = '';

    /** @var array{mixed, mixed}|null the handlers of errors and exceptions that were there before any application's */
    private ?array $handlers = null;

    public function createApplication(): Application
    {
        $this->handlers ??= self::handlers();
        $this->deleteStorage();
        $this->storage = sys_get_temp_dir().'/embudo-laravel-'.Str::random(12);
        foreach (['EMBUDO_STORAGE' => '', 'APP_CONFIG_CACHE' => '/config.php', 'APP_ROUTES_CACHE' => '/routes.php', 'APP_SERVICES_CACHE' => '/services.php', 'APP_PACKAGES_CACHE' => '/packages.php'] as $name => $file) {
            $_SERVER[$name] = $_ENV[$name] = $this->storage.$file;
            putenv("{$name}={$this->storage}{$file}");
        }
        mkdir("{$this->storage}/views", 0700, true);

        return $this->newApplication();
    }

    protected function newApplication(): Application
    {
        $app = require __DIR__.'/../../tests/laravel-app/bootstrap/app.php';
        $app->booted(fn () => $this->changes && ($this->changes)($app));
        $app->make(Kernel::class)->bootstrap();
        $app->make(Kernel::class)->call('migrate', ['--force' => true]);

        return $app;
    }

    /** A new application with these changes: routes, or another configuration. */
    protected function with(Closure $changes): void
    {
        $this->changes = $changes;
        $this->refreshApplication();
    }

    protected function tearDown(): void
    {
        parent::tearDown();
        $this->deleteStorage();
        // Each application adds its own, and PHPUnit wants them gone.
        for ($at = 0; $at < 100 && self::handlers()[0] !== $this->handlers[0]; $at++) {
            restore_error_handler();
        }
        for ($at = 0; $at < 100 && self::handlers()[1] !== $this->handlers[1]; $at++) {
            restore_exception_handler();
        }
    }

    /** @return array{mixed, mixed} */
    private static function handlers(): array
    {
        $handlers = [set_error_handler(null), set_exception_handler(null)];
        restore_error_handler();
        restore_exception_handler();

        return $handlers;
    }

    private function deleteStorage(): void
    {
        if ($this->storage !== '') {
            (new Filesystem())->deleteDirectory($this->storage);
        }
    }

    /** @param array<int, mixed> $items */
    protected function batch(array $items, array $headers = []): TestResponse
    {
        return $this->postJson('/api/qr/batch', ['qrs' => $items], $headers);
    }

    /** @return array<string, mixed> */
    protected static function qr(int $session, string $qr = '2@a', ?int $timestamp = null): array
    {
        $item = ['session_id' => self::uuid($session), 'qr' => $qr];

        return $timestamp === null ? $item : $item + ['timestamp' => $timestamp];
    }

    protected static function uuid(int $number): string
    {
        return sprintf('00000000-0000-4000-8000-%012d', $number);
    }

    /** The QR that the application has of a session. */
    protected function stored(int $session): ?string
    {
        return $this->app['db']->table('accounts')->where('session_id', self::uuid($session))->value('qr');
    }
}
