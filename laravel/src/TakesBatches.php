<?php

namespace Embudo\Laravel;

use Closure;
use Embudo\Laravel\Batch\Run;
use Embudo\Laravel\Sandbox\Objects;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Foundation\Application;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Http\Request;
use Illuminate\Routing\Route;
use Symfony\Component\HttpFoundation\Response;
use Throwable;
use WeakMap;

/**
 * The first of the application's global middleware: it takes a batch before any other sees it.
 *
 * All of them are for the items. Run for the batch, too, they would count, change and refuse what is no request of the
 * gateway's; and what they do to a request's input is meant for an item.
 */
final class TakesBatches
{
    /** @var WeakMap<Request, Run> */
    private WeakMap $runs;

    /** @param Application&\Illuminate\Container\Container $app */
    public function __construct(private Application $app)
    {
        $this->runs = new WeakMap();
    }

    /** @return mixed */
    public function handle(Request $request, Closure $next)
    {
        $route = $this->routeOf($request);

        return $route === null ? $next($request) : $this->answer($request, $route);
    }

    public function answer(Request $batch, Route $route): Response
    {
        $batch->setRouteResolver(static fn () => $route);
        $this->app->instance(Route::class, $route);
        $run = new Run($this->app, $this->app->make(Kernel::class), $batch, $route->getAction('embudo'));
        $this->runs[$batch] = $run;
        try {
            return $run->answer();
        } catch (Throwable $error) {
            $handler = $this->app->make(ExceptionHandler::class);
            $handler->report($error);
            $answer = $handler->render($batch, $error);
            $answer->headers->set(Run::MARK, Run::VERSION);

            return $answer;
        }
    }

    /** Ends the items, and nothing else: what runs after a request has run for each of them. */
    public function terminate(Request $request): void
    {
        $run = $this->runs[$request] ?? null;
        if ($run === null) {
            return;
        }
        unset($this->runs[$request]);
        $run->terminate();
        $this->endNothingElse();
    }

    /** Ends the items of a batch that has come by its route, since the application runs without middleware. */
    public function end(Request $batch): void
    {
        $run = $this->runs[$batch] ?? null;
        unset($this->runs[$batch]);
        if ($run !== null) {
            $run->terminate();
        }
    }

    /** The batch route that is asked for. */
    private function routeOf(Request $request): ?Route
    {
        if ($request->server->get('REQUEST_METHOD') !== 'POST' || ! $this->isBatchPath(trim($request->decodedPath(), '/'))) {
            return null;
        }
        try {
            $route = $this->app->make('router')->getRoutes()->match($request);
        } catch (Throwable $none) {
            return null;
        }

        return $route->getAction('embudo') === null ? null : $route;
    }

    private function isBatchPath(string $path): bool
    {
        foreach ($this->app['config']['embudo.routes'] ?? [] as $rule) {
            if (str_ends_with($path, $rule['batch'])) {
                return true;
            }
        }

        return false;
    }

    /**
     * For the rest of this request: the kernel is in the middle of ending the middleware behind this one, which has not
     * served the batch, and goes on with the application's callbacks, which have run for each item.
     */
    private function endNothingElse(): void
    {
        $before = Objects::read($this->app);
        $nothing = new class()
        {
        };
        $instances = $before['instances'];
        $middleware = Objects::read($this->app->make(Kernel::class))['middleware'] ?? [];
        foreach ($middleware as $name) {
            if (is_string($name)) {
                $instances[explode(':', $name, 2)[0]] = $nothing;
            }
        }
        // As many as there were, so that none of them follows the one that puts them back.
        $callbacks = array_fill(0, count($before['terminatingCallbacks']), static fn () => null);
        $callbacks[] = fn () => Objects::write($this->app, $before);
        Objects::write($this->app, ['instances' => $instances, 'terminatingCallbacks' => $callbacks]);
    }
}
