<?php

namespace Embudo\Laravel\Sandbox;

use Illuminate\Cache\ArrayStore;
use Illuminate\Contracts\Auth\Access\Gate;
use Illuminate\Contracts\Bus\Dispatcher as Bus;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Foundation\Application;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Contracts\Routing\ResponseFactory;
use Illuminate\Database\Eloquent\Model;
use Illuminate\Database\Eloquent\Relations\Relation;
use Illuminate\Http\Resources\Json\JsonResource;
use Illuminate\Pagination\AbstractPaginator;
use Illuminate\Queue\Queue;
use Illuminate\Support\Carbon;
use Illuminate\Support\Facades\Facade;
use Illuminate\Support\Manager;
use Symfony\Component\HttpFoundation\Request;

/**
 * All that a request may change in an application, as it is before the first item, so that each begins with it.
 *
 * A worker that lives long (Octane) clones the application for each request and then tells each service of the clone.
 * Here the application stays the one that providers, closures and services know, and its tables are put back: what an
 * item has bound or resolved is gone, what was there before is there again. It costs some microseconds, and nothing has
 * to be told. Services that were there before, and are changed in place, have their own properties put back: those that
 * are named here, as they are Laravel's.
 *
 * An item's own world is kept until the batch was answered: what it left for then is run in it.
 */
final class World
{
    /** Services of Laravel's that hold what belongs to a request, and which of their properties hold what does not. */
    private const SERVICES = [
        'config' => [],
        'events' => [],
        'router' => [],
        'url' => [],
        'cookie' => [],
        'redirect' => [],
        // What was read of language files is the same for all.
        'translator' => ['loaded'],
        'view' => [],
        'auth' => [],
        'session' => [],
        'log' => [],
        'cache' => [],
        'cache.rateLimiter' => [],
        'validator' => [],
        'filesystem' => [],
        'mail.manager' => [],
        'encrypter' => [],
        // Connections outlive an item, as they outlive a request where they are persistent.
        'db' => ['connections'],
        'queue' => ['connections'],
        Bus::class => [],
        Gate::class => [],
        Kernel::class => [],
        ExceptionHandler::class => [],
        \Illuminate\Bus\Dispatcher::class => [],
        \Illuminate\Broadcasting\BroadcastManager::class => [],
        \Illuminate\Cache\RateLimiter::class => [],
        \Illuminate\Log\Context\Repository::class => [],
        \Illuminate\Notifications\ChannelManager::class => [],
    ];

    /** Static properties that middleware and controllers write to. */
    private const STATICS = [
        Request::class => ['trustedProxies', 'trustedHostPatterns', 'trustedHosts', 'trustedHeaderSet'],
        // A tenant's global scope, first of all. Listeners are put back, so models register theirs again: `booted`.
        Model::class => [
            'booted', 'bootedCallbacks', 'globalScopes', 'unguarded', 'ignoreOnTouch', 'resolver', 'dispatcher',
            'modelsShouldPreventLazyLoading', 'lazyLoadingViolationCallback',
            'modelsShouldPreventSilentlyDiscardingAttributes', 'discardedAttributeViolationCallback',
            'modelsShouldPreventAccessingMissingAttributes', 'missingAttributeViolationCallback', 'isBroadcasting',
        ],
        Relation::class => ['morphMap', 'requireMorphMap', 'constraints'],
        JsonResource::class => ['wrap'],
        AbstractPaginator::class => ['currentPathResolver', 'currentPageResolver', 'queryStringResolver', 'defaultView', 'defaultSimpleView'],
        Queue::class => ['createPayloadCallbacks'],
        \Illuminate\Support\Number::class => ['locale', 'currency'],
        \Illuminate\Support\Once::class => ['instance', 'enabled'],
    ];

    private const INI = ['memory_limit', 'display_errors', 'precision', 'serialize_precision', 'default_socket_timeout'];

    /** Used by most requests, and the same for all of them: made once instead of for each item. */
    private const WARM = [
        'validator', 'translator', 'cache', 'redis', 'queue', 'url', 'view', 'redirect',
        Bus::class, ExceptionHandler::class, ResponseFactory::class,
        \Illuminate\Routing\Contracts\ControllerDispatcher::class, \Illuminate\Routing\Contracts\CallableDispatcher::class,
    ];

    /** @var array<int, array{object, array<int, string>}> */
    private array $objects;

    /** @var array<int, array{ArrayStore, array<string, mixed>}> */
    private array $memories;

    /** @var array<string, string> models that were looked at */
    private array $models = [];

    private int $errorReporting;

    private string $timezone;

    private string $locale;

    private int $seconds;

    /** @var array<string, string|false> */
    private array $ini = [];

    /** @param Application&\Illuminate\Container\Container $app */
    public function __construct(private Application $app)
    {
        foreach (self::WARM as $service) {
            if ($app->bound($service)) {
                $app->make($service);
            }
        }
        // What it holds is for longer than a request; what other stores in memory hold is not.
        $default = $app->bound('cache') ? $app->make('cache')->store() : null;
        $this->objects = $this->objectsOf(Objects::read($app)['instances']);
        $this->memories = $this->memoriesBut($default);
        $this->errorReporting = error_reporting();
        $this->timezone = date_default_timezone_get();
        $this->locale = (string) setlocale(LC_ALL, '0');
        $this->seconds = (int) ini_get('max_execution_time');
        foreach (self::INI as $name) {
            $this->ini[$name] = ini_get($name);
        }
    }

    /** @return array{objects: array<int, array<string, mixed>>, statics: array<class-string, array<string, mixed>|null>, carbon: array<int, mixed>} */
    public function capture(): array
    {
        $objects = [];
        foreach ($this->objects as $at => [$object, $but]) {
            $objects[$at] = Objects::read($object, $but);
        }
        $statics = [];
        foreach (self::STATICS as $class => $names) {
            $statics[$class] = class_exists($class, false) ? Objects::readStatic($class, $names) : null;
        }

        return ['objects' => $objects, 'statics' => $statics, 'carbon' => [Carbon::getLocale(), Carbon::getTestNow()]];
    }

    /** @param array{objects: array<int, array<string, mixed>>, statics: array<class-string, array<string, mixed>|null>, carbon: array<int, mixed>} $state */
    public function restore(array $state): void
    {
        foreach ($state['objects'] as $at => $values) {
            Objects::write($this->objects[$at][0], $values);
        }
        foreach ($state['statics'] as $class => $values) {
            if ($values === null && class_exists($class, false)) {
                $values = Objects::initialStatic($class, self::STATICS[$class]);
            }
            if ($values !== null) {
                Objects::writeStatic($class, $values);
            }
        }
        Facade::clearResolvedInstances();
        if (Carbon::getLocale() !== $state['carbon'][0]) {
            Carbon::setLocale($state['carbon'][0]);
        }
        if (Carbon::getTestNow() !== $state['carbon'][1]) {
            Carbon::setTestNow($state['carbon'][1]);
        }
    }

    /** What PHP itself keeps, and no item needs again after it was answered. */
    public function restorePhp(): void
    {
        error_reporting($this->errorReporting);
        if (date_default_timezone_get() !== $this->timezone) {
            date_default_timezone_set($this->timezone);
        }
        if (setlocale(LC_ALL, '0') !== $this->locale) {
            setlocale(LC_ALL, $this->locale);
        }
        foreach ($this->ini as $name => $value) {
            if (is_string($value) && ini_get($name) !== $value) {
                ini_set($name, $value);
            }
        }
        if ((int) ini_get('max_execution_time') !== $this->seconds) {
            set_time_limit($this->seconds);
        }
        foreach ($this->memories as [$store, $values]) {
            Objects::write($store, $values);
        }
    }

    /**
     * The state with which an item begins: as a request does, nobody is known yet, and what is scoped is fresh.
     *
     * @param  array{objects: array<int, array<string, mixed>>, statics: array<class-string, array<string, mixed>|null>, carbon: array<int, mixed>}  $state
     * @param  array<int, string>  $flush  more bindings that are made anew for each item
     * @param  array<string, \Closure>  $extenders  for classes that are made in an item
     */
    public function fresh(array $state, array $flush, array $extenders): array
    {
        $app = $state['objects'][0];
        // Laravel's own, which a provider may have written to: its properties are put back.
        $kept = [\Illuminate\Log\Context\Repository::class];
        $scoped = array_diff(self::scoped($app), $kept);
        foreach (array_merge($scoped, $flush, ['auth.driver', 'session.store']) as $abstract) {
            unset($app['instances'][$this->app->getAlias($abstract)], $app['instances'][$abstract]);
        }
        foreach ($extenders as $class => $extender) {
            if (isset($app['instances'][$class])) {
                $app['instances'][$class] = $extender($app['instances'][$class], $this->app);
            } else {
                $app['extenders'][$class][] = $extender;
            }
        }
        $state['objects'][0] = $app;
        foreach ($this->objects as $at => [$object]) {
            if ($object instanceof \Illuminate\Auth\AuthManager) {
                $state['objects'][$at]['guards'] = [];
            }
            if ($object instanceof \Illuminate\Session\SessionManager) {
                $state['objects'][$at]['drivers'] = [];
            }
        }
        if (isset($state['statics'][\Illuminate\Support\Once::class])) {
            $state['statics'][\Illuminate\Support\Once::class]['instance'] = null;
        }

        return $state;
    }

    /**
     * What an item has found out about classes, and would have to find out again for each.
     *
     * @param  array<string, mixed>  $fresh  what items begin with
     * @param  array<string, mixed>  $state  what one has ended with
     */
    public function learn(array &$fresh, array $state): void
    {
        $app = $state['objects'][0];
        $known = &$fresh['objects'][0]['checkedForAttributeBindings'];
        if ($known !== null && count($known) < count($app['checkedForAttributeBindings'])) {
            // Those for which it has bound something are not bound in the next.
            $known += array_diff_key($app['checkedForAttributeBindings'], $app['bindings']);
        }
        $booted = $state['statics'][Model::class]['booted'] ?? [];
        $left = $fresh['statics'][Model::class]['booted'] ?? [];
        if (count($booted) > count($left)) {
            foreach (array_diff_key($booted, $left, $this->models) as $class => $is) {
                $this->models[$class] = $class;
                if ($this->models()->isTheSameForAll($class, $state['statics'][Model::class])) {
                    $fresh['statics'][Model::class]['booted'][$class] = $is;
                }
            }
        }
    }

    private function models(): Models
    {
        return new Models($this->app->make('events'));
    }

    /**
     * A state in which these classes are not made.
     *
     * @param  array<string, mixed>  $state
     * @param  array<string, object>  $instances
     * @return array<string, mixed>
     */
    public function without(array $state, array $instances): array
    {
        $state['objects'][0]['instances'] += $instances;

        return $state;
    }

    /**
     * @param  array<string, mixed>  $app
     * @return array<int, string>
     */
    private static function scoped(array $app): array
    {
        return array_values($app['scopedInstances'] ?? []);
    }

    /**
     * The application first, since what it holds decides what the others are.
     *
     * @param  array<string, mixed>  $instances
     * @return array<int, array{object, array<int, string>}>
     */
    private function objectsOf(array $instances): array
    {
        // Laravel 12 and later: what was read of a class's attributes is the same for all.
        $objects = [[$this->app, ['checkedForSingletonOrScopedAttributes']]];
        foreach (self::SERVICES as $abstract => $but) {
            $object = $instances[$this->app->getAlias($abstract)] ?? null;
            if (is_object($object)) {
                $objects[spl_object_id($object)] = [$object, $but];
            }
        }
        foreach ($instances as $object) {
            if ($object instanceof Manager && ! isset($objects[spl_object_id($object)])) {
                $objects[spl_object_id($object)] = [$object, []];
            }
        }
        if (isset($instances['log'])) {
            $objects = array_merge($objects, self::channels($instances['log']));
        }
        $routes = isset($instances['url']) ? (Objects::read($instances['url'])['routeGenerator'] ?? null) : null;
        if (is_object($routes)) {
            $objects[] = [$routes, []];
        }

        return array_values($objects);
    }

    /** @return array<int, array{object, array<int, string>}> */
    private static function channels(object $log): array
    {
        $objects = [];
        foreach (method_exists($log, 'getChannels') ? $log->getChannels() : [] as $channel) {
            $objects[] = [$channel, []];
            $logger = method_exists($channel, 'getLogger') ? $channel->getLogger() : null;
            if ($logger instanceof \Monolog\Logger) {
                $objects[] = [$logger, []];
            }
        }

        return $objects;
    }

    /** @return array<int, array{ArrayStore, array<string, mixed>}> */
    private function memoriesBut(?object $default): array
    {
        $memories = [];
        $stores = $this->app->bound('cache') ? (Objects::read($this->app->make('cache'))['stores'] ?? []) : [];
        foreach ($stores as $repository) {
            $store = $repository->getStore();
            if ($repository !== $default && $store instanceof ArrayStore) {
                $memories[] = [$store, Objects::read($store)];
            }
        }

        return $memories;
    }
}
