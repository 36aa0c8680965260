<?php

namespace Embudo\Laravel;

use Closure;
use Illuminate\Contracts\Auth\Middleware\AuthenticatesRequests;
use Illuminate\Contracts\Container\Container;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Events\Dispatcher;
use Illuminate\Http\Request;
use Illuminate\Routing\Events\RouteMatched;
use Illuminate\Routing\Middleware\ThrottleRequests;
use Illuminate\Routing\Pipeline;
use Illuminate\Routing\Route;
use Illuminate\Routing\Router;
use Illuminate\Support\Facades\Facade;
use Symfony\Component\HttpFoundation\Response;
use Throwable;

/**
 * The application's own single route, as it serves one item within the same process.
 *
 * It is what the router does with a request, without its throttle: a batch is one request and counts as one. The
 * router itself cannot be asked to leave a middleware out for one request.
 */
final class SingleRoute
{
    public function __construct(private Container $app, private Router $router, private Dispatcher $events)
    {
    }

    /**
     * What the single route demands of a caller, and is demanded of a batch as a whole: who it is, and how often it
     * comes.
     *
     * @return array<int, mixed>
     */
    public function middlewareOnce(Request $request): array
    {
        $middleware = $this->middlewareOf($this->match($request));

        return array_values(array_filter($middleware, fn ($name) => $this->isOnce($name) || self::is($name, AuthenticatesRequests::class)));
    }

    /**
     * Sends a request through middleware; what is thrown on the way becomes an answer, as everywhere in Laravel.
     *
     * @param  array<int, mixed>  $middleware
     */
    public function through(Request $request, array $middleware, Closure $then): Response
    {
        $prepared = static fn (Request $request) => Router::toResponse($request, $then());

        return (new Pipeline($this->app))->send($request)->through($middleware)->then($prepared);
    }

    /** Serves one item. It never throws, and leaves the application as it was. */
    public function serve(Request $item): Response
    {
        $batch = $this->app->make('request');
        $levels = $this->transactionLevels();
        try {
            $this->enter($item);
            $route = $this->match($item);
            $item->setRouteResolver(static fn () => $route);
            $this->app->instance(Route::class, $route);
            $this->events->dispatch(new RouteMatched($route, $item));
            $middleware = array_filter($this->middlewareOf($route), fn ($name) => ! $this->isOnce($name));

            return $this->through($item, array_values($middleware), static fn () => $route->run());
        } catch (Throwable $error) {
            $handler = $this->app->make(ExceptionHandler::class);
            $handler->report($error);

            return $handler->render($item, $error);
        } finally {
            $this->rollBackTo($levels);
            $this->enter($batch);
            $this->app->instance(Route::class, $batch->route());
        }
    }

    /** Makes a request the current one; the guards, the URL generator and others are told by the container. */
    private function enter(Request $request): void
    {
        $this->app->instance('request', $request);
        Facade::clearResolvedInstance('request');
    }

    /** A copy of its own: a route keeps its controller, and a controller may keep the request that it was made for. */
    private function match(Request $request): Route
    {
        $route = clone $this->router->getRoutes()->match($request);
        $route->controller = null;
        $route->computedMiddleware = null;

        return $route->setRouter($this->router)->setContainer($this->app);
    }

    /** @return array<int, mixed> */
    private function middlewareOf(Route $route): array
    {
        return $this->router->gatherRouteMiddleware($route);
    }

    /** @param mixed $middleware */
    private function isOnce($middleware): bool
    {
        foreach ([ThrottleRequests::class, ...config('embudo.once')] as $class) {
            if (self::is($middleware, $class)) {
                return true;
            }
        }

        return false;
    }

    /** @param mixed $middleware a closure, or a class with arguments after a colon */
    private static function is($middleware, string $class): bool
    {
        return is_string($middleware) && is_a(explode(':', $middleware, 2)[0], $class, true);
    }

    /** @return array<string, int> */
    private function transactionLevels(): array
    {
        if (! $this->app->bound('db')) {
            return [];
        }

        return array_map(static fn ($connection) => $connection->transactionLevel(), $this->app->make('db')->getConnections());
    }

    /**
     * Ends the transactions that an item has left open. At the end of a request the database does; here the next
     * item would write into them, be told that all is well, and be rolled back.
     *
     * @param  array<string, int>  $levels
     */
    private function rollBackTo(array $levels): void
    {
        foreach ($this->transactionLevels() as $name => $level) {
            if ($level > ($levels[$name] ?? 0)) {
                $this->app->make('db')->connection($name)->rollBack($levels[$name] ?? 0);
            }
        }
    }
}
