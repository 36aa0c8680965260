<?php

namespace Embudo\Laravel\Console;

use Embudo\Laravel\BatchController;
use Embudo\Laravel\TakesBatches;
use Embudo\Laravel\Sandbox\Objects;
use Illuminate\Cache\ArrayStore;
use Illuminate\Cache\FileStore;
use Illuminate\Console\Command;
use Illuminate\Contracts\Cache\LockProvider;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Routing\Middleware\ThrottleRequests;
use Illuminate\Routing\Middleware\ValidateSignature;
use Illuminate\Routing\Route;

final class CheckCommand extends Command
{
    protected $signature = 'embudo:check
        {--strict : Exit with 1 for what is only doubtful, too}
        {--file=* : Read these files of PHP-FPM and nginx instead of those in the usual places}';

    protected $description = 'Check whether Embudo\'s batches work here: routes, middleware, limits, caches';

    protected $help = 'Exits with 0 where batches work, and with 1 where something keeps them from it. For deploy scripts.';

    /** What Embudo sends at most in one body, and how long it waits, unless it is told otherwise. */
    private const BATCH_BYTES = 512 << 10;

    private const CALL_SECONDS = 15;

    /** What an application and a batch of that size need at least. */
    private const MEMORY_BYTES = 64 << 20;

    private int $wrong = 0;

    private int $doubtful = 0;

    public function handle(): int
    {
        $this->versions();
        $this->routes();
        $this->limits(new Limits($this->option('file')));
        $this->fence();
        $this->line('');
        $this->line("{$this->wrong} wrong, {$this->doubtful} doubtful");

        return $this->wrong > 0 || ($this->option('strict') && $this->doubtful > 0) ? 1 : 0;
    }

    private function versions(): void
    {
        $this->say('ok', 'Laravel '.$this->laravel->version().', PHP '.PHP_VERSION.', batches of version '.\Embudo\Laravel\Batch\Run::VERSION);
        $kernel = $this->laravel->make(Kernel::class);
        $global = Objects::read($kernel)['middleware'] ?? [];
        if (($global[0] ?? null) !== TakesBatches::class) {
            $this->say('wrong', 'the package is not the first of the global middleware: something was put before it, or the kernel has none; what comes first runs for the batch, and again for each item');
        }
        if ($this->laravel->isDownForMaintenance()) {
            $this->say('doubtful', 'the application is down: batches are answered as everything is; `php artisan up` ends it');
        }
        if (! config('embudo.enabled')) {
            $this->say('wrong', 'embudo.enabled is off: there are no batch routes');
        }
    }

    private function routes(): void
    {
        $known = [];
        foreach ($this->laravel['router']->getRoutes()->getRoutes() as $route) {
            if (in_array('POST', $route->methods(), true)) {
                $known[trim($route->uri(), '/')] = $route;
            }
        }
        $found = 0;
        foreach (config('embudo.prefixes') as $prefix) {
            foreach (config('embudo.routes') as $rule) {
                $single = $known[trim($prefix.'/'.$rule['single'], '/')] ?? null;
                $batch = $known[trim($prefix.'/'.$rule['batch'], '/')] ?? null;
                if ($single !== null) {
                    $found++;
                    $this->route($single, $batch, trim($prefix.'/'.$rule['batch'], '/'));
                }
            }
        }
        if ($found === 0) {
            $this->say('wrong', 'there is no single route: none of '.implode(', ', array_column(config('embudo.routes'), 'single')).' below '.implode(', ', array_map(static fn ($prefix) => "/{$prefix}", config('embudo.prefixes'))).'; set `prefixes` and `routes` in config/embudo.php');
        }
    }

    private function route(Route $single, ?Route $batch, string $path): void
    {
        if ($batch === null) {
            $cached = method_exists($this->laravel, 'routesAreCached') && $this->laravel->routesAreCached();
            $this->say('wrong', "POST /{$single->uri()} has no batch route /{$path}".($cached ? ': the routes were cached before the package came; run php artisan route:cache' : ''));

            return;
        }
        if ($batch->getActionName() !== BatchController::class && $batch->getAction('embudo') === null) {
            $this->say('ok', "POST /{$path} is the application's own; the package stays away");

            return;
        }
        $this->say('ok', "POST /{$single->uri()} has a batch route, /{$path}");
        foreach ($this->laravel['router']->gatherRouteMiddleware($single) as $middleware) {
            $this->middleware(is_string($middleware) ? $middleware : 'a closure');
        }
    }

    private function middleware(string $middleware): void
    {
        $class = explode(':', $middleware, 2)[0];
        if (is_a($class, ValidateSignature::class, true)) {
            $this->say('wrong', "  {$middleware}: a signed address is the single route's; items of a batch come without one, and are answered 403");
        } elseif (is_a($class, ThrottleRequests::class, true)) {
            $this->say('ok', "  {$middleware}: a limit that all items share counts a batch once, one by session counts each");
        } elseif (stripos($class, 'Csrf') !== false || stripos($class, 'RequestForgery') !== false) {
            $this->say('doubtful', "  {$middleware}: a gateway has no CSRF token; a batch passes where its gateway does");
        } elseif (preg_match('~signature|hmac|webhook|idempot|nonce|replay~i', $class)) {
            $this->say('doubtful', "  {$middleware}: items share the headers of their batch; what is signed, or used once, per request cannot be in them");
        } else {
            $this->say('ok', "  {$middleware}: runs for each item");
        }
    }

    private function limits(Limits $limits): void
    {
        $max = (float) config('embudo.max_seconds', 10);
        if ($max >= self::CALL_SECONDS) {
            $this->say('doubtful', "max_seconds is {$max}: Embudo gives a call up after ".self::CALL_SECONDS.' s (call_timeout_ms)');
        }
        foreach (['post_max_size' => self::BATCH_BYTES, 'client_max_body_size' => self::BATCH_BYTES, 'memory_limit' => self::MEMORY_BYTES] as $name => $least) {
            $this->limit($limits, $name, static fn ($value) => Limits::bytes($value) <= 0 || Limits::bytes($value) >= $least, 'at least '.($least >> 10).' K', 'smaller batches pass');
        }
        $this->limit($limits, 'fastcgi_read_timeout', static fn ($value) => Limits::seconds($value) > $max, "more than {$max} s", 'nginx answers 504 while PHP goes on');
        $this->limit($limits, 'max_execution_time', static fn ($value) => (int) $value === 0 || (int) $value > $max, "more than {$max} s, or a batch ends earlier", 'batches are cut short');
        $said = (float) config('embudo.request_terminate_timeout', 0);
        $this->limit($limits, 'request_terminate_timeout', static fn ($value) => Limits::seconds($value) === 0 || Limits::seconds($value) > $max || $said > 0, "more than {$max} s, or EMBUDO_TERMINATE_TIMEOUT says it", 'PHP-FPM ends a batch in the middle of an item');
        $control = $limits->get('process_control_timeout');
        if ($control === null || Limits::seconds($control[0]) < $max) {
            $this->say('doubtful', 'process_control_timeout is '.($control[0] ?? '0 (its default)').': a reload of PHP-FPM ends batches in the middle; '.((int) $max + 5).'s lets them end');
        } else {
            $this->say('ok', "process_control_timeout is {$control[0]} ({$control[1]})");
        }
        if (PHP_SAPI === 'cli' && (int) ini_get('output_buffering') === 0 && $limits->get('memory_limit') === null) {
            $this->say('ok', 'PHP-FPM\'s php.ini was not found; --file says where it is');
        }
    }

    private function limit(Limits $limits, string $name, callable $isEnough, string $wanted, string $otherwise): void
    {
        $found = $limits->get($name);
        if ($found === null) {
            $this->say('ok', "{$name}: not set in any file that was read");
        } elseif ($isEnough($found[0])) {
            $this->say('ok', "{$name} is {$found[0]} ({$found[1]})");
        } else {
            $this->say('doubtful', "{$name} is {$found[0]} ({$found[1]}); it should be {$wanted}: {$otherwise}");
        }
    }

    private function fence(): void
    {
        if (! config('embudo.fence.enabled')) {
            return;
        }
        $store = $this->laravel['cache']->store(config('embudo.fence.store'))->getStore();
        if ($store instanceof ArrayStore || ! $store instanceof LockProvider) {
            $this->say('wrong', 'the fence has a cache that forgets, or has no locks; redis, memcached, database or dynamodb have them');
        } elseif ($store instanceof FileStore) {
            $this->say('doubtful', 'the fence is in files: it holds for one server');
        } else {
            $this->say('ok', 'the fence is in '.class_basename($store));
        }
    }

    private function say(string $how, string $what): void
    {
        $this->wrong += $how === 'wrong' ? 1 : 0;
        $this->doubtful += $how === 'doubtful' ? 1 : 0;
        $styles = ['ok' => 'info', 'doubtful' => 'comment', 'wrong' => 'error'];
        $this->line(sprintf('<%s>%-8s</> %s', $styles[$how], $how, \Symfony\Component\Console\Formatter\OutputFormatter::escape($what)));
    }
}
