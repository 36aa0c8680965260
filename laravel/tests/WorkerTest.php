<?php

namespace Embudo\Laravel\Tests;

use Illuminate\Http\Request;
use Illuminate\Support\Facades\App;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Event;
use Illuminate\Support\Facades\Log;
use Illuminate\Support\Facades\Route;
use ReflectionObject;

/** A worker that lives long, as under Octane: one application serves them all. */
final class WorkerTest extends TestCase
{
    private const BATCHES = 1000;

    /** PHP doubles tables of its own at times, by megabytes where other tests came before; that is in one round. */
    private const ROUNDS = 4;

    /** What PHP may keep of 250 batches: five bytes for each item, were it anything of theirs. */
    private const GROWTH_BYTES = 4 << 10;

    public function testAThousandBatchesLeaveNothingBehind(): void
    {
        $singles = 0;
        $this->with(static function ($app) use (&$singles): void {
            config(['logging.channels.null' => ['driver' => 'monolog', 'handler' => \Monolog\Handler\NullHandler::class], 'logging.default' => 'null']);
            Route::post('api/qr', static function (Request $request) use ($app, &$singles): array {
                $singles += App::getLocale() === 'en' && config('app.name') === 'Embudo test application' ? 1 : 0;
                App::setLocale('pt');
                config(['app.name' => $request->input('qr')]);
                Log::withContext(['qr' => $request->input('qr')]);
                Log::info('a line');
                Event::listen('stored', static fn () => null);
                $app->instance('tenant', new \ArrayObject(range(1, 100)));
                $app->terminating(static fn () => null);
                Auth::setUser(new \Illuminate\Auth\GenericUser(['id' => 1]));
                abort_if($request->input('qr') === 'bad', 409, 'bad');

                return ['success' => true];
            });
        });
        $items = [self::qr(1, 'a'), self::qr(2, 'bad'), self::qr(3, 'c')];
        $this->warm($items);
        $tables = $this->tables();
        $singles = 0;
        $grown = [];
        for ($round = 0; $round < self::ROUNDS; $round++) {
            gc_collect_cycles();
            $memory = memory_get_usage();
            for ($batch = 0; $batch < self::BATCHES / self::ROUNDS; $batch++) {
                $this->work($items);
            }
            gc_collect_cycles();
            $grown[] = memory_get_usage() - $memory;
        }
        self::assertSame(3 * self::BATCHES, $singles, 'each item begins as the first did');
        self::assertSame($tables, $this->tables());
        self::assertLessThan(self::GROWTH_BYTES, min($grown), 'what is kept of batches grows in every round');
        self::assertSame(['en', 'Embudo test application', null], [App::getLocale(), config('app.name'), Auth::user()]);
    }

    public function testWhatASingleSeesAfterABatchIsWhatItWouldHaveSeen(): void
    {
        $seen = [];
        $this->with(static function () use (&$seen): void {
            Route::post('api/qr', static function (Request $request) use (&$seen): array {
                $seen[] = [$request->path(), Route::current()->uri(), App::getLocale(), Auth::id()];
                App::setLocale('pt');
                Auth::setUser(new \Illuminate\Auth\GenericUser(['id' => 1]));

                return [];
            });
        });
        $this->batch([self::qr(1), self::qr(2)])->assertJson(['processed' => 2]);
        $this->postJson('/api/qr', self::qr(3))->assertOk();
        self::assertSame(array_fill(0, 3, ['api/qr', 'api/qr', 'en', null]), $seen);
    }

    /** @param array<int, mixed> $items */
    private function warm(array $items): void
    {
        for ($batch = 0; $batch < 20; $batch++) {
            $this->work($items);
        }
    }

    /** @param array<int, mixed> $items */
    private function work(array $items): void
    {
        $kernel = $this->app->make(\Illuminate\Contracts\Http\Kernel::class);
        $body = json_encode(['qrs' => $items]);
        $request = Request::create('/api/qr/batch', 'POST', [], [], [], ['CONTENT_TYPE' => 'application/json', 'HTTP_ACCEPT' => 'application/json'], $body);
        $answer = $kernel->handle($request);
        self::assertSame('{"success":true,"processed":2', substr($answer->getContent(), 0, 29));
        $kernel->terminate($request, $answer);
    }

    /** How much each of the application's tables holds. */
    private function tables(): array
    {
        $sizes = [];
        foreach ([$this->app, $this->app['events'], $this->app['router'], $this->app['log']] as $object) {
            foreach ((new ReflectionObject($object))->getProperties() as $property) {
                $property->setAccessible(true);
                if (! $property->isStatic() && $property->isInitialized($object) && is_array($property->getValue($object))) {
                    $sizes[get_class($object).'::'.$property->getName()] = count($property->getValue($object), COUNT_RECURSIVE);
                }
            }
        }

        return $sizes;
    }
}
