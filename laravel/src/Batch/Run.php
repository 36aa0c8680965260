<?php

namespace Embudo\Laravel\Batch;

use Embudo\Laravel\Fence;
use Embudo\Laravel\Sandbox\Databases;
use Embudo\Laravel\Sandbox\Objects;
use Embudo\Laravel\Sandbox\World;
use Embudo\Laravel\Verdict;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Foundation\Application;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Routing\Route;
use LogicException;
use Symfony\Component\ErrorHandler\Error\FatalError;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpFoundation\StreamedResponse;
use Throwable;

/**
 * One batch: each item is a request of its own to the application's kernel, with all of its middleware.
 *
 * Its line in `results` is the answer of the item's request. An item without a line was not begun, and comes again.
 */
final class Run
{
    public const MARK = 'x-embudo-batch';

    public const VERSION = '2';

    private const JSON = JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR;

    /** Of PHP's own limit so much may be used: what was begun needs some of it, too. */
    private const PART_OF_LIMIT = 0.8;

    private World $world;

    private Databases $databases;

    private OncePerBatch $once;

    private Garbage $garbage;

    private ItemRequests $requests;

    /** @var array<string, mixed> what was there before the batch */
    private array $before;

    /** @var array<string, mixed> what each item begins with */
    private array $fresh;

    /** @var array<int, array<string, mixed>> */
    private array $lines = [];

    /** @var array<int, array{Request, Response, array<string, mixed>}> what goes on after the answer */
    private array $served = [];

    private ?Item $begun = null;

    private int $outputLevel;

    /** @var array<int, string> */
    private array $headers;

    private bool $isFenced;

    private ?bool $routeEnds = null;

    /** @var array<string, object> middleware that does nothing at the end of a request */
    private array $endless;

    private ?Response $first = null;

    private float $longest = 0.0;

    /**
     * @param  Application&\Illuminate\Container\Container  $app
     * @param  array{single: string, field: string}  $rule
     */
    public function __construct(private Application $app, private Kernel $kernel, private Request $batch, private array $rule)
    {
        $this->garbage = new Garbage();
        $this->outputLevel = ob_get_level();
        $this->headers = headers_list();
    }

    public function answer(): Response
    {
        $config = $this->app['config']['embudo'];
        $items = (new Items($this->app->make('validator'), (int) $config['max_items']))->of((string) $this->batch->getContent(), $this->rule['field']);
        $this->prepare($config);
        LastWords::of($this);
        $this->garbage->wait();
        try {
            $turnedAway = $this->serve($items, $this->app->make(Fence::class), $this->endsAt($config));
        } finally {
            LastWords::none();
            $this->world->restore($this->before);
            $this->garbage->waitNoLonger();
        }

        return $turnedAway ?? $this->result();
    }

    /**
     * Runs what the items have left for after the answer: `terminate` of their middleware, callbacks, deferred jobs.
     * None of them stops another's.
     */
    public function terminate(): void
    {
        if (! isset($this->world)) {
            return;
        }
        $level = ob_get_level();
        $this->garbage->wait();
        foreach ($this->served as [$request, $response, $world]) {
            $this->world->restore($world);
            // The answer is on its way; what is printed now would be behind it.
            ob_start();
            try {
                $this->kernel->terminate($request, $response);
            } catch (Throwable $broken) {
                $this->report($broken);
            }
            $this->endOutput($level);
            $this->reportOpen($this->databases->rollBack());
            $this->databases->forget((bool) $this->app['config']['embudo.reconnect']);
            $this->world->restorePhp();
        }
        $this->served = [];
        $this->world->restore($this->before);
        $this->garbage->waitNoLonger();
    }

    /** What is to be said when the process ends in the middle of an item. */
    public function answerAtItsEnd(): Response
    {
        if ($this->begun !== null) {
            $this->lines[] = $this->line($this->begun, $this->failure('The item has ended the process.'));
            $this->begun = null;
        }
        $this->databases->rollBack();

        return $this->result();
    }

    public function discardOutput(): void
    {
        $this->endOutput($this->outputLevel);
        if (! headers_sent()) {
            header_remove();
        }
    }

    /** @param array<string, mixed> $config */
    private function prepare(array $config): void
    {
        $this->world = new World($this->app);
        $this->databases = new Databases($this->app);
        $this->once = new OncePerBatch($config['once'] ?? []);
        $this->requests = new ItemRequests($this->batch, $this->rule['single']);
        $this->before = $this->world->capture();
        $this->renderFatalErrors();
        $this->isFenced = (bool) ($config['fence']['enabled'] ?? false);
        $middleware = $this->middleware();
        $this->endless = $this->endless($middleware);
        $extenders = $this->once->extenders($middleware);
        $this->fresh = $this->world->fresh($this->world->capture(), $config['flush'] ?? [], $extenders);
        // Once in a batch, and not for each item: as it is for the batch, so it is for them.
        $this->app->instance('request', $this->batch);
    }

    /**
     * @param  array<int, Item>  $items
     * @return Response|null the answer for all of them, where what turned one away turns all away
     */
    private function serve(array $items, Fence $fence, float $endsAt): ?Response
    {
        foreach ($items as $at => $item) {
            $began = microtime(true);
            if ($at > 0 && $began + $this->longest > $endsAt) {
                return null;
            }
            $this->begun = $item;
            $this->once->begin();
            $request = null;
            $response = $item->body === null
                ? new JsonResponse(['message' => 'The item must be an object.'], Response::HTTP_UNPROCESSABLE_ENTITY)
                : $fence->guard($item, function () use ($item, &$request): Response {
                    $request = $this->requests->of($item->body);

                    return $this->serveItem($request);
                });
            $this->first ??= $request === null ? null : $response;
            $this->begun = null;
            if ($request !== null && $request->route() === null && $this->app->isDownForMaintenance()) {
                // Nothing was begun: as Laravel answers while it is down, so it answers a batch; or the rest waits.
                return $at === 0 ? $response : null;
            }
            $this->lines[] = $this->line($item, $response);
            if ($this->isForAll($response, count($items))) {
                return $this->marked($response);
            }
            $this->garbage->collect();
            $this->longest = max($this->longest, microtime(true) - $began);
        }

        return null;
    }

    private function serveItem(Request $request): Response
    {
        $level = ob_get_level();
        $this->world->restore($this->fresh);
        ob_start();
        try {
            $response = $this->kernel->handle($request);
            if ($response instanceof StreamedResponse) {
                // What streams works while it is sent.
                $response->sendContent();
            }
        } catch (Throwable $broken) {
            $this->report($broken);
            $response = $this->failure('Server Error');
        }
        $this->endOutput($level);
        $this->restoreHeaders();
        $open = $this->databases->rollBack();
        if ($open !== []) {
            $this->reportOpen($open);
            $response = $this->failure('The item left a database transaction open.');
        }
        $this->keepRoute($request);
        $this->databases->forget((bool) $this->app['config']['embudo.reconnect']);
        $world = $this->world->capture();
        $this->world->learn($this->fresh, $world);
        $this->served[] = [$request, $response, $this->world->without($world, $this->endless)];
        $this->world->restorePhp();
        if ($this->isFenced) {
            $this->world->restore($this->before);
        }

        return $response;
    }

    /** Two items that nobody lets in, or none that the same limit lets in: all have the same credentials. */
    private function isForAll(Response $response, int $items): bool
    {
        if ($this->once->isRefused() || ($items === 1 && $this->once->isDenied())) {
            return true;
        }
        $lines = count($this->lines);
        $isUnknown = array_column($this->lines, 'status') === array_fill(0, $lines, Response::HTTP_UNAUTHORIZED);

        return $isUnknown && $lines === min($items, 2);
    }

    private function result(): Response
    {
        $body = [
            'success' => true,
            'processed' => count(array_filter($this->lines, [Verdict::class, 'isProcessed'])),
            'results' => $this->lines,
        ];
        $skipped = count(array_filter($this->lines, [Verdict::class, 'isSkipped']));
        if ($skipped > 0) {
            $body['skipped'] = $skipped;
        }
        $answer = new JsonResponse($body, Response::HTTP_OK, [], self::JSON);
        // One limit for all of them is the batch's; the others are each item's own affair.
        if ($this->first !== null && isset($this->once) && $this->once->passed() === 1) {
            foreach (['x-ratelimit-limit', 'x-ratelimit-remaining'] as $name) {
                if ($this->first->headers->has($name)) {
                    $answer->headers->set($name, $this->first->headers->get($name));
                }
            }
        }

        return $this->marked($answer);
    }

    private function marked(Response $response): Response
    {
        $response->headers->set(self::MARK, self::VERSION);

        return $response;
    }

    /** @return array<string, mixed> */
    private function line(Item $item, Response $response): array
    {
        return Verdict::of($item->session, $response);
    }

    private function failure(string $message): Response
    {
        return new JsonResponse(['message' => $message], Response::HTTP_INTERNAL_SERVER_ERROR);
    }

    /** @param array<string, mixed> $config */
    private function endsAt(array $config): float
    {
        $now = microtime(true);
        $began = (float) $this->batch->server->get('REQUEST_TIME_FLOAT', $now);
        $limits = array_filter([
            (float) ($config['max_seconds'] ?? 10),
            self::PART_OF_LIMIT * (float) ini_get('max_execution_time'),
            self::PART_OF_LIMIT * (float) ($config['request_terminate_timeout'] ?? 0),
        ]);

        // A worker that lives long may have kept the time at which it began itself.
        return ($now - $began < 60 ? $began : $now) + min($limits ?: [INF]);
    }

    /**
     * All middleware that an item may meet, by class.
     *
     * @return array<int, mixed>
     */
    private function middleware(): array
    {
        $router = $this->app->make('router');
        $global = Objects::read($this->kernel)['middleware'] ?? [];
        try {
            $declared = (array) ($router->getRoutes()->match($this->requests->of('{}'))->getAction('middleware') ?? []);
        } catch (Throwable $none) {
            $declared = [];
        }

        return array_merge($global, array_values($router->getMiddleware()), $declared, ...array_values($router->getMiddlewareGroups()));
    }

    /**
     * The kernel makes each middleware once more to see whether it has to be ended: for most of them that is all.
     *
     * @param  array<int, mixed>  $middleware
     * @return array<string, object>
     */
    private function endless(array $middleware): array
    {
        $endless = [];
        $nothing = new class()
        {
        };
        foreach ($middleware as $name) {
            $class = is_string($name) ? explode(':', $name, 2)[0] : '';
            if (! isset($endless[$class]) && class_exists($class) && ! method_exists($class, 'terminate') && ! $this->app->bound($class)) {
                $endless[$class] = $nothing;
            }
        }

        return $endless;
    }

    /** A route keeps its controller and its parameters, and the next item is served by the same one. */
    private function keepRoute(Request $request): void
    {
        $route = $request->route();
        if (! $route instanceof Route) {
            return;
        }
        $kept = clone $route;
        $this->routeEnds ??= $this->doesRouteEnd($kept);
        if (! $this->routeEnds) {
            // None of them has an end; to look each up again would take as long as to serve it.
            $kept->computedMiddleware = [];
        }
        $request->setRouteResolver(static fn () => $kept);
        $this->app->instance(Route::class, $kept);
        $route->controller = null;
        $route->computedMiddleware = null;
    }

    private function doesRouteEnd(Route $route): bool
    {
        foreach ($this->app->make('router')->gatherRouteMiddleware($route) as $name) {
            $class = is_string($name) ? explode(':', $name, 2)[0] : '';
            if ($class !== '' && (! class_exists($class) || method_exists($class, 'terminate') || $this->app->bound($class))) {
                return true;
            }
        }

        return false;
    }

    /** Laravel renders what has ended the process, and sends it: for a batch, the batch's answer. */
    private function renderFatalErrors(): void
    {
        $handler = $this->app->make(ExceptionHandler::class);
        $callbacks = Objects::read($handler)['renderCallbacks'] ?? null;
        if (is_array($callbacks)) {
            array_unshift($callbacks, static fn (FatalError $error) => LastWords::answer());
            Objects::write($handler, ['renderCallbacks' => $callbacks]);
        }
    }

    /** @param array<int, string> $connections */
    private function reportOpen(array $connections): void
    {
        if ($connections !== []) {
            $names = implode(', ', $connections);
            $this->report(new LogicException("Embudo: an item left a transaction open, and it was rolled back: {$names}"));
        }
    }

    private function report(Throwable $error): void
    {
        try {
            $this->app->make(ExceptionHandler::class)->report($error);
        } catch (Throwable $broken) {
            error_log((string) $error);
        }
    }

    private function endOutput(int $level): void
    {
        while (ob_get_level() > $level && ob_end_clean()) {
            continue;
        }
        // An item that has ended more than its own.
        while (ob_get_level() < $level && ob_start()) {
            continue;
        }
    }

    /** What an item has said to PHP about headers would be said of the batch. */
    private function restoreHeaders(): void
    {
        if (headers_sent() || headers_list() === $this->headers) {
            return;
        }
        header_remove();
        foreach ($this->headers as $header) {
            header($header, false);
        }
    }
}
