<?php

/* Each written once, and run alone and in batches. `vip` is what the others of a batch are, where they leave traces. */

namespace Embudo\Laravel\Tests\Conformance;

use Illuminate\Auth\Middleware\Authenticate;
use Illuminate\Auth\Middleware\Authorize;
use Illuminate\Cache\RateLimiting\Limit;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Foundation\Http\Middleware\ConvertEmptyStringsToNull;
use Illuminate\Http\Exceptions\HttpResponseException;
use Illuminate\Http\Request;
use Illuminate\Http\Resources\Json\JsonResource;
use Illuminate\Session\Middleware\StartSession;
use Illuminate\Support\Carbon;
use Illuminate\Support\Facades\App;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Bus;
use Illuminate\Support\Facades\Cache;
use Illuminate\Support\Facades\Cookie;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Event;
use Illuminate\Support\Facades\Gate;
use Illuminate\Support\Facades\Log;
use Illuminate\Support\Facades\Queue;
use Illuminate\Support\Facades\RateLimiter;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\Facades\URL;
use Illuminate\Support\Facades\View;
use RuntimeException;

$isVip = static fn (): bool => request()->input('qr') === 'vip';

/** The single route, with this controller. */
$route = static fn ($controller, ...$middleware) => Route::post('api/qr', $controller)->middleware($middleware);

/** A middleware does something for some sessions; what does the controller of another see? */
$leak = static fn (callable $do, callable $see) => new Behaviour(static function () use ($do, $see, $isVip, $route): void {
    Before::$do = static function (Request $request) use ($do, $isVip): void {
        if ($isVip()) {
            $do($request);
        }
    };
    $route(static function (Request $request) use ($see): array {
        Seen::note('seen', $see($request));

        return ['success' => true];
    }, Before::class);
});

/** Global middleware, before the application's own. */
$global = static fn ($app, string $class) => $app->make(Kernel::class)->pushMiddleware($class);

/** The controller's answer is what matters. */
$answer = static fn (callable $controller, array $item = ['qr' => 'plain'], array $others = ['qr' => 'vip']) => new Behaviour(
    static fn () => $route($controller),
    $item,
    $others
);

/** Something is left for after the answer. */
$after = static fn (callable $controller, int $since = 8, array $middleware = []) => new Behaviour(
    static fn () => $route($controller, ...$middleware),
    ['qr' => 'plain'],
    ['qr' => 'vip'],
    [],
    $since
);

return [
    // ## What one item leaves is not there for the next
    'a scoped instance' => new Behaviour(static function ($app) use ($route, $isVip): void {
        $app->scoped(Tenant::class);
        Before::$do = static function () use ($isVip): void {
            if ($isVip()) {
                app(Tenant::class)->name = 'vip';
            }
        };
        $route(static fn () => Seen::note('tenant', app(Tenant::class)->name) ?? [], Before::class);
    }),
    'a singleton that is made in the request' => new Behaviour(static function ($app) use ($route): void {
        $app->singleton(Remembers::class);
        $route(static function (Request $request): array {
            app(Remembers::class)->seen[] = $request->input('qr');
            Seen::note('remembers', app(Remembers::class)->seen);

            return [];
        });
    }),
    'an instance that middleware binds' => $leak(
        static fn () => app()->instance('tenant.name', 'vip'),
        static fn () => app()->bound('tenant.name')
    ),
    'a binding that middleware replaces' => $leak(
        static fn () => app()->bind(Tenant::class, Account::class),
        static fn () => get_class(app(Tenant::class))
    ),
    'a resolving callback' => $leak(
        static fn () => app()->resolving(Tenant::class, static fn (Tenant $tenant) => $tenant->name = 'vip'),
        static fn () => app(Tenant::class)->name
    ),
    'the locale' => $leak(static fn () => App::setLocale('pt'), static fn () => [App::getLocale(), app('translator')->getLocale()]),
    'the fallback locale' => $leak(static fn () => app('translator')->setFallback('pt'), static fn () => app('translator')->getFallback()),
    'the locale of dates' => $leak(static fn () => Carbon::setLocale('pt'), static fn () => Carbon::getLocale()),
    'the time that is said to be' => $leak(
        static fn () => Carbon::setTestNow('2020-01-01'),
        static fn () => Carbon::now()->year > 2020
    ),
    'a configured value' => $leak(static fn () => config(['app.name' => 'vip']), static fn () => config('app.name')),
    'what is logged with each line' => $leak(static fn () => Log::withContext(['tenant' => 'vip']), static fn () => Log::info('a line')),
    'the context' => (static function () use ($leak) {
        $behaviour = $leak(
            static fn () => \Illuminate\Support\Facades\Context::add('tenant', 'vip'),
            static fn () => \Illuminate\Support\Facades\Context::all()
        );
        $behaviour->since = 11;

        return $behaviour;
    })(),
    'a value that is made once' => (static function () use ($leak) {
        $behaviour = $leak(static fn () => null, [OnceOf::class, 'session']);
        $behaviour->set = static function () use ($behaviour): void {
            Route::post('api/qr', static fn () => Seen::note('once', OnceOf::session()) ?? []);
        };
        $behaviour->since = 11;

        return $behaviour;
    })(),
    'a user that middleware sets' => $leak(static fn () => Auth::setUser(User::named('vip')), static fn () => optional(Auth::user())->id),
    'the default guard' => new Behaviour(static function ($app) use ($route, $isVip): void {
        config(['auth.guards.vip' => ['driver' => 'token', 'provider' => 'nobody']]);
        Before::$do = static fn () => $isVip() ? Auth::shouldUse('vip') : null;
        $route(static fn () => Seen::note('guard', Auth::getDefaultDriver()) ?? [], Before::class);
    }),
    'the default connection' => new Behaviour(static function () use ($route, $isVip): void {
        config(['database.connections.other' => config('database.connections.sqlite')]);
        Before::$do = static fn () => $isVip() ? DB::setDefaultConnection('other') : null;
        $route(static fn () => Seen::note('connection', DB::connection()->getName()) ?? [], Before::class);
    }),
    'a tenant\'s database' => new Behaviour(static function ($app) use ($route): void {
        Before::$do = static function (Request $request) use ($app): void {
            $file = $app->storagePath().'/'.$request->input('qr').'.sqlite';
            touch($file);
            config(['database.connections.tenant' => ['driver' => 'sqlite', 'database' => $file, 'prefix' => '']]);
        };
        $route(static fn () => Seen::note('database', basename(DB::connection('tenant')->getDatabaseName())) ?? [], Before::class);
    }),
    'a prefix of tables' => $leak(
        static fn () => DB::connection()->setTablePrefix('vip_'),
        static fn () => DB::connection()->getTablePrefix()
    ),
    'the log of queries' => $leak(static function (): void {
        DB::enableQueryLog();
        DB::table('accounts')->count();
    }, static fn () => [DB::logging(), count(DB::getQueryLog())]),
    'a tenant\'s global scope' => $leak(
        static fn () => Account::addGlobalScope('tenant', static fn ($query) => $query->where('qr', 'vip')),
        static fn () => Account::query()->toSql()
    ),
    'a model without a guard' => $leak(static fn () => Account::unguard(), static fn () => Account::isUnguarded()),
    'an attribute in the session' => new Behaviour(static function () use ($route): void {
        config(['session' => ['driver' => 'array', 'lifetime' => 120, 'lottery' => [0, 100], 'cookie' => 's', 'path' => '/', 'domain' => null, 'expire_on_close' => false]]);
        app()->register(\Illuminate\Session\SessionServiceProvider::class);
        $route(static function (): array {
            Seen::note('session', session()->increment('n'));

            return [];
        }, StartSession::class);
    }),
    'a flash in the session' => new Behaviour(static function () use ($route, $isVip): void {
        config(['session' => ['driver' => 'array', 'lifetime' => 120, 'lottery' => [0, 100], 'cookie' => 's', 'path' => '/', 'domain' => null, 'expire_on_close' => false]]);
        app()->register(\Illuminate\Session\SessionServiceProvider::class);
        $route(static function () use ($isVip): array {
            Seen::note('flash', session('status'));
            if ($isVip()) {
                session()->flash('status', 'vip');
            }

            return [];
        }, StartSession::class);
    }),
    'a cookie that is queued' => new Behaviour(static function () use ($route, $isVip): void {
        app()->register(\Illuminate\Cookie\CookieServiceProvider::class);
        config(['session' => ['path' => '/', 'domain' => null, 'secure' => false, 'same_site' => null]]);
        Before::$do = static function () use ($isVip): void {
            if ($isVip()) {
                Cookie::queue('tenant', 'vip');
            }
        };
        $route(static fn () => Seen::note('cookies', count(Cookie::getQueuedCookies())) ?? [], Before::class);
    }),
    'what views share' => $leak(static fn () => View::share('tenant', 'vip'), static fn () => View::shared('tenant')),
    'defaults of URLs' => $leak(static fn () => URL::defaults(['tenant' => 'vip']), static fn () => URL::getDefaultParameters()),
    'the root of URLs' => $leak(static fn () => URL::forceRootUrl('https://vip.example'), static fn () => url('/a')),
    'a listener that middleware adds' => new Behaviour(static function () use ($route): void {
        Before::$do = static function (): void {
            Event::listen('stored', static fn () => Seen::note('heard'));
        };
        $route(static fn () => event('stored') ? [] : [], Before::class);
    }),
    'a listener of a model' => new Behaviour(static function () use ($route): void {
        Before::$do = static function (): void {
            Account::creating(static fn () => Seen::note('creating, by middleware'));
        };
        $route(static fn (Request $request) => Account::create($request->only('session_id', 'qr')) ? [] : [], Before::class);
    }),
    'a cache in memory' => new Behaviour(static function ($app) use ($route): void {
        config(['cache.default' => 'file']);
        Cache::store('array')->get('warm');
        $route(static fn (Request $request) => Seen::note('memo', Cache::store('array')->rememberForever('m', static fn () => $request->input('qr'))) ?? []);
    }),
    'the time zone' => $leak(static fn () => date_default_timezone_set('America/Lima'), static fn () => date_default_timezone_get()),
    'the locale of PHP' => $leak(static fn () => setlocale(LC_NUMERIC, 'C.UTF-8'), static fn () => setlocale(LC_ALL, '0')),
    'a setting of PHP' => $leak(static fn () => ini_set('precision', '3'), static fn () => ini_get('precision')),
    'what is an error' => $leak(static fn () => error_reporting(0), static fn () => error_reporting()),
    'how resources are wrapped' => $leak(static fn () => JsonResource::withoutWrapping(), static fn () => JsonResource::$wrap),
    'what is put into each job' => new Behaviour(static function () use ($route): void {
        Before::$do = static function (Request $request): void {
            Queue::createPayloadUsing(static fn () => [$request->input('session_id') => true]);
        };
        $route(static function (): array {
            Queue::before(static fn ($event) => Seen::note('payload', count($event->job->payload())));
            Job::dispatchSync(request('session_id'), 'plain');
            Bus::dispatch((new Job(request('session_id'), 'plain'))->onConnection('sync'));

            return [];
        }, Before::class);
    }),
    'an ability that middleware defines' => $leak(static fn () => Gate::define('vip', static fn () => true), static fn () => Gate::has('vip')),
    'a channel of the log' => $leak(static fn () => config(['logging.channels.null.tap' => [Tenant::class]]), static fn () => config('logging.channels.null.tap')),
    'a limiter in the controller' => $answer(static function (Request $request) {
        $key = $request->input('qr');

        return RateLimiter::tooManyAttempts("limit-{$key}", 1) ? abort(429) : ['hits' => RateLimiter::hit("limit-{$key}")];
    }),

    // ## The request is the gateway's
    'a controller keeps its request' => new Behaviour(static fn () => $route([QrController::class, 'store'])),
    'the current request' => $leak(static fn () => null, static fn (Request $request) => [
        request()->path(), request()->input('qr'), \Illuminate\Support\Facades\Request::path(), url()->current(), $request->fullUrl(), $request->isSecure(),
    ]),
    'the current route' => $leak(static fn () => null, static fn (Request $request) => [
        Route::current()->uri(), optional($request->route())->uri(), Route::is('qr'), Route::getCurrentRequest()->path(), $request->fingerprint(),
    ]),
    'an attribute of a global middleware' => new Behaviour(static function ($app) use ($global, $route): void {
        $global($app, Before::class);
        Before::$do = static fn (Request $request) => $request->attributes->set('tenant', $request->input('qr'));
        $route(static fn (Request $request) => Seen::note('tenant', $request->attributes->get('tenant')) ?? []);
    }),
    'what a global middleware merges' => new Behaviour(static function ($app) use ($global, $route): void {
        $global($app, Before::class);
        Before::$do = static function (Request $request): void {
            $request->merge(['region' => 'br']);
        };
        $route(static fn (Request $request) => Seen::note('all', $request->all()) ?? []);
    }),
    'a global middleware that asks for the path' => new Behaviour(static function ($app) use ($global, $route): void {
        $global($app, Before::class);
        Before::$do = static fn (Request $request) => Seen::note('is', $request->is('api/qr'));
        $route(static fn () => []);
    }),
    'a global middleware that turns one away' => new Behaviour(static function ($app) use ($global, $route): void {
        $global($app, Before::class);
        Before::$do = static fn (Request $request) => $request->input('qr') === 'plain' ? response()->json(['message' => 'not here'], 403) : null;
        $route(static fn () => []);
    }),
    'a string is trimmed, except the QR' => new Behaviour(static function ($app) use ($global, $route): void {
        $global($app, TrimStrings::class);
        $route(static fn (Request $request) => Seen::note('all', $request->all()) ?? []);
    }, ['qr' => '2@abc ', 'note' => ' x ']),
    'an empty string is null' => new Behaviour(static function ($app) use ($global, $route): void {
        $global($app, ConvertEmptyStringsToNull::class);
        $route(static fn (Request $request) => Seen::note('all', $request->all()) ?? []);
    }, ['qr' => 'x', 'note' => '']),
    'the bytes of the body' => $answer(
        static fn (Request $request) => Seen::note('raw', [$request->getContent(), $request->header('content-length')]) ?? [],
        ['qr' => "2@é/\u{1F600}", 'data' => new \stdClass(), 'list' => [], 'n' => 1.0]
    ),
    'all members, and no more' => $answer(static fn (Request $request) => DB::table('accounts')->insert($request->all()) ? [] : []),
    'the address behind proxies' => new Behaviour(static function ($app) use ($global, $route): void {
        $global($app, TrustProxies::class);
        $route(static fn (Request $request) => Seen::note('from', [$request->ip(), $request->isSecure(), url('/a')]) ?? []);
    }, ['qr' => 'plain'], ['qr' => 'vip'], ['X-Forwarded-For' => '203.0.113.9', 'X-Forwarded-Proto' => 'https']),
    'headers' => new Behaviour(
        static fn () => $route(static fn (Request $request) => Seen::note('headers', [$request->bearerToken(), $request->header('x-tenant'), $request->userAgent()]) ?? []),
        ['qr' => 'plain'],
        ['qr' => 'vip'],
        ['Authorization' => 'Bearer t', 'X-Tenant' => 'a', 'User-Agent' => 'gateway']
    ),
    'a request that prepares and validates itself' => new Behaviour(
        static fn () => $route(static fn (QrRequest $request) => Seen::note('valid', $request->validated()) ?? []),
        ['qr' => 'plain', 'region' => 'BR'],
        ['qr' => 'vip', 'region' => 'BR']
    ),
    'a request that does not authorise itself' => new Behaviour(
        static fn () => $route(static fn (QrRequest $request) => []),
        ['qr' => 'vip', 'region' => 'BR'],
        ['qr' => 'plain', 'region' => 'BR']
    ),
    'a guard that looks into the body' => new Behaviour(static function () use ($route): void {
        config(['auth.guards.gateway' => ['driver' => 'gateway']]);
        Auth::viaRequest('gateway', static fn (Request $request) => $request->input('session_id') ? User::named('user of '.$request->input('session_id')) : null);
        $route(static fn () => Seen::note('user', Auth::id()) ?? [], Authenticate::class.':gateway');
    }),
    'a guard that knows all sessions but this one' => new Behaviour(static function () use ($route): void {
        config(['auth.guards.gateway' => ['driver' => 'gateway']]);
        Auth::viaRequest('gateway', static fn (Request $request) => $request->input('qr') === 'vip' ? User::named('vip') : null);
        $route(static fn () => [], Authenticate::class.':gateway');
    }),
    'an ability of the user' => new Behaviour(static function () use ($route): void {
        config(['auth.guards.gateway' => ['driver' => 'gateway'], 'auth.defaults.guard' => 'gateway']);
        Auth::viaRequest('gateway', static fn (Request $request) => User::named($request->input('qr')));
        Gate::define('store', static fn (User $user) => $user->id === 'vip');
        $route(static fn () => [], Authorize::class.':store');
    }),
    'a throttle by session' => new Behaviour(static function () use ($route): void {
        RateLimiter::for('session', static fn (Request $request) => Limit::perMinute(1)->by($request->input('session_id')));
        $route(static fn () => [], 'throttle:session');
    }),
    'a throttle by session that has had enough' => new Behaviour(static function () use ($route): void {
        RateLimiter::for('session', static fn (Request $request) => Limit::perMinute($request->input('qr') === 'vip' ? 9 : 0)->by($request->input('session_id')));
        $route(static fn () => [], 'throttle:session');
    }),

    // ## The answer is the item's
    'what is printed' => $answer(static function (): array {
        echo 'x';

        return ['skipped' => true, 'reason' => 'printed'];
    }),
    'what is not valid' => $answer(static fn (Request $request) => $request->validate(['qr' => 'size:3'])),
    'a conflict' => $answer(static fn () => abort(409, 'in use')),
    'a model that is not there' => $answer(static fn () => Account::query()->findOrFail('none')),
    'a query that fails' => $answer(static fn () => DB::table('none')->get()),
    'an exception that is an answer' => $answer(static fn () => throw new HttpResponseException(response()->json(['message' => 'gone'], 410))),
    'nothing' => $answer(static fn () => response()->noContent()),
    'a thing that was made' => $answer(static fn (Request $request) => response()->json(['id' => $request->input('qr')], 201)),
    'a redirect' => $answer(static fn () => redirect('/login')),
    'a success that is none' => $answer(static fn () => ['success' => false, 'message' => 'no such account']),
    'an exception in a transaction' => $answer(static function (Request $request): array {
        DB::transaction(static function () use ($request): void {
            DB::table('accounts')->insert($request->only('session_id', 'qr'));
            throw new RuntimeException('in a transaction');
        });

        return [];
    }),
    'a stream that works while it is sent' => $answer(static fn (Request $request) => response()->stream(static function () use ($request): void {
        DB::table('accounts')->insert($request->only('session_id', 'qr'));
        echo '{}';
    })),
    'rows, and events of models' => $answer(static fn (Request $request) => Account::create($request->only('session_id', 'qr'))),
    'a job at once' => $answer(static fn (Request $request) => Job::dispatchSync($request->input('session_id'), 'plain') ?? []),

    // ## What comes after the answer
    'jobs after the answer' => $after(static fn (Request $request) => Job::dispatchAfterResponse($request->input('session_id'), $request->input('qr')) ? [] : []),
    'a callback of the application\'s' => $after(static function (Request $request): array {
        config(['app.name' => $request->input('qr')]);
        app()->terminating(static function () use ($request): void {
            Seen::note('end', [request()->path(), config('app.name')], $request->input('session_id'));
            throw_if($request->input('qr') === 'vip', new RuntimeException('an end'));
        });

        return [];
    }),
    'the end of a route\'s middleware' => new Behaviour(static function () use ($route): void {
        Ending::$end = static fn (Request $request, $response) => Seen::note('end', [$request->path(), $response->getStatusCode(), optional($request->route())->uri()]);
        $route(static fn (Request $request) => response()->json([], $request->input('qr') === 'vip' ? 500 : 201), Ending::class);
    }),
    'the end of a global middleware' => new Behaviour(static function ($app) use ($global, $route): void {
        $global($app, Ending::class);
        Ending::$end = static fn (Request $request, $response) => Seen::note('end', [$request->path(), $response->getStatusCode(), App::getLocale()]);
        $route(static fn (Request $request) => App::setLocale($request->input('qr')) ?? []);
    }),
    'a scoped instance at the end' => new Behaviour(static function ($app) use ($route): void {
        $app->scoped(Tenant::class);
        Ending::$end = static fn () => Seen::note('end', app(Tenant::class)->name);
        $route(static function (Request $request): array {
            app(Tenant::class)->name = $request->input('session_id');

            return [];
        }, Ending::class);
    }),
    'deferred, by name' => $after(static function (Request $request): array {
        $session = $request->input('session_id');
        \Illuminate\Support\defer(static fn () => Seen::note('deferred', request()->path(), $session), 'notify');

        return [];
    }, 11),
    'deferred, before a failure' => $after(static function (Request $request) {
        $session = $request->input('session_id');
        \Illuminate\Support\defer(static fn () => Seen::note('deferred', null, $session));
        \Illuminate\Support\defer(static fn () => Seen::note('deferred, always', null, $session))->always();

        return response()->json([], $request->input('qr') === 'vip' ? 200 : 500);
    }, 11),
];
