<?php

namespace Embudo\Laravel;

use Embudo\Laravel\Console\CheckCommand;
use Embudo\Laravel\Console\TryCommand;
use Illuminate\Contracts\Foundation\CachesRoutes;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Routing\Router;
use Illuminate\Support\ServiceProvider;

/**
 * Adds a batch route beside each single route that the application has, unless it has a batch route of its own, and takes
 * batches before the application's middleware does.
 */
final class EmbudoServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $this->mergeConfigFrom(self::configFile(), 'embudo');
        $this->app->bind(Fence::class, static fn ($app) => new Fence($app['cache'], $app['config']['embudo.fence']));
        // One, since the kernel makes it once to take a batch, and once more to end it.
        $this->app->singleton(TakesBatches::class);
    }

    public function boot(): void
    {
        $this->publishes([self::configFile() => $this->app->configPath('embudo.php')], 'embudo-config');
        if ($this->app->runningInConsole()) {
            $this->commands([CheckCommand::class, TryCommand::class]);
        }
        // Which routes the application has is known once all providers have booted.
        $this->app->booted(function (): void {
            // `route:cache` has written ours down with all others.
            $areCached = $this->app instanceof CachesRoutes && $this->app->routesAreCached();
            if (! $areCached && $this->app['config']['embudo.enabled']) {
                $this->addRoutes($this->app['router']);
            }
            // Before what other providers put first.
            $this->callAfterResolving(Kernel::class, static function ($kernel): void {
                if (method_exists($kernel, 'prependMiddleware')) {
                    $kernel->prependMiddleware(TakesBatches::class);
                }
            });
        });
    }

    private function addRoutes(Router $router): void
    {
        $known = $this->postRoutes($router);
        foreach ($this->app['config']['embudo.prefixes'] as $prefix) {
            foreach ($this->app['config']['embudo.routes'] as $rule) {
                $single = trim($prefix.'/'.$rule['single'], '/');
                $batch = trim($prefix.'/'.$rule['batch'], '/');
                if (isset($known[$single]) && ! isset($known[$batch])) {
                    // Strings and arrays only, or `route:cache` could not write it down.
                    $router->post($batch, [
                        'uses' => BatchController::class,
                        'embudo' => ['single' => $single, 'field' => $rule['field']],
                    ]);
                }
            }
        }
    }

    /** @return array<string, true> */
    private function postRoutes(Router $router): array
    {
        $known = [];
        foreach ($router->getRoutes()->getRoutes() as $route) {
            if (in_array('POST', $route->methods(), true)) {
                $known[trim($route->uri(), '/')] = true;
            }
        }

        return $known;
    }

    private static function configFile(): string
    {
        return __DIR__.'/../config/embudo.php';
    }
}
