<?php

namespace Embudo\Laravel\Batch;

use Closure;
use Illuminate\Cache\RateLimiter;
use Illuminate\Cache\RateLimiting\Limit;
use Illuminate\Cache\RateLimiting\Unlimited;
use Illuminate\Contracts\Foundation\Application;
use Illuminate\Http\Request;
use Illuminate\Routing\Middleware\ThrottleRequests;
use Symfony\Component\HttpFoundation\Response;

/**
 * Middleware that counts requests: a batch is one request, and counts as one.
 *
 * Of Laravel's throttle each limit counts once for all items that it knows by the same name, as `by($request->ip())` does,
 * and once for each item where it knows them by different ones, as `by($request->input('session_id'))` does. Middleware
 * that the configuration names lets the first item in, or turns the batch away.
 */
final class OncePerBatch
{
    /** @var array<string, true> limits that an item has passed */
    private array $passed = [];

    /** @var array<string, string> limits that the item has not passed */
    private array $denied = [];

    /** @var array<string, string> limits that the item before has not passed */
    private array $deniedBefore = [];

    private bool $isRefused = false;

    /** @param array<int, string> $classes middleware that runs once */
    public function __construct(private array $classes)
    {
    }

    /**
     * For each such class among these, what is put around it when an item's request makes it.
     *
     * @param  array<int, mixed>  $middleware
     * @return array<class-string, Closure>
     */
    public function extenders(array $middleware): array
    {
        $extenders = [];
        foreach ($middleware as $name) {
            $class = is_string($name) ? explode(':', $name, 2)[0] : '';
            if ($class === '' || isset($extenders[$class])) {
                continue;
            }
            if ($this->isNamed($class)) {
                $extenders[$class] = fn ($middleware) => $this->around($middleware, fn (...$call) => $this->once($class, ...$call));
            } elseif (is_a($class, ThrottleRequests::class, true)) {
                $extenders[$class] = fn ($middleware, $app) => $this->around($middleware, fn (...$call) => $this->throttle($app, $class, ...$call));
            }
        }

        return $extenders;
    }

    public function begin(): void
    {
        $this->deniedBefore = $this->denied;
        $this->denied = [];
    }

    /** Whether the batch has no further to go: what turned the item away would turn all away. */
    public function isRefused(): bool
    {
        return $this->isRefused || array_intersect($this->denied, $this->deniedBefore) !== [];
    }

    /** Whether the item was turned away by a limit. */
    public function isDenied(): bool
    {
        return $this->denied !== [];
    }

    /** How many limits the items have passed. */
    public function passed(): int
    {
        return count($this->passed);
    }

    private function isNamed(string $class): bool
    {
        foreach ($this->classes as $named) {
            if (is_a($class, $named, true)) {
                return true;
            }
        }

        return false;
    }

    private function around(object $middleware, Closure $handle): object
    {
        return new class($middleware, $handle)
        {
            public function __construct(private object $middleware, private Closure $handle)
            {
            }

            /** @return mixed */
            public function handle(Request $request, Closure $next, ...$arguments)
            {
                return ($this->handle)($this->middleware, $request, $next, $arguments);
            }

            public function terminate(Request $request, Response $response): void
            {
                if (method_exists($this->middleware, 'terminate')) {
                    $this->middleware->terminate($request, $response);
                }
            }
        };
    }

    /** @return mixed */
    private function once(string $class, object $middleware, Request $request, Closure $next, array $arguments)
    {
        if (isset($this->passed[$class])) {
            return $next($request);
        }
        $this->isRefused = true;

        return $middleware->handle($request, function ($request) use ($class, $next) {
            $this->isRefused = false;
            $this->passed[$class] = true;

            return $next($request);
        }, ...$arguments);
    }

    /** @return mixed */
    private function throttle(Application $app, string $class, object $middleware, Request $request, Closure $next, array $arguments)
    {
        $name = $arguments[0] ?? null;
        $limiters = $app->make(RateLimiter::class);
        $limiter = is_string($name) || is_int($name) ? $limiters->limiter($name) : null;
        $run = static fn (Closure $next) => $middleware->handle($request, $next, ...$arguments);
        if ($limiter === null) {
            $user = $request->user();
            $who = $user ? 'user|'.$user->getAuthIdentifier() : $request->route()->getDomain().'|'.$request->ip();

            return $this->limit($request, $class.'|'.implode(',', $arguments).'|'.$who, $run, $next);
        }
        $limits = $limiter($request);
        foreach (array_reverse(is_array($limits) ? $limits : [$limits]) as $limit) {
            $alone = static function (Closure $next) use ($limiters, $name, $limit, $run) {
                $limiters->for($name, static fn () => $limit);

                return $run($next);
            };
            // No limit, or an answer: neither counts.
            $next = $limit instanceof Limit && ! $limit instanceof Unlimited
                ? fn ($request) => $this->limit($request, $name.'|'.$limit->key.'|'.$limit->maxAttempts, $alone, $next)
                : fn ($request) => $alone($next);
        }

        return $next($request);
    }

    /**
     * Lets an item through a limit, each on its own: which of several has turned it away, the throttle does not tell.
     *
     * @return mixed
     */
    private function limit(Request $request, string $key, Closure $run, Closure $next)
    {
        if (isset($this->passed[$key])) {
            return $next($request);
        }
        $this->denied[$key] = $key;

        return $run(function ($request) use ($key, $next) {
            unset($this->denied[$key]);
            $this->passed[$key] = true;

            return $next($request);
        });
    }
}
