<?php

namespace Embudo\Laravel\Tests;

use Illuminate\Contracts\Http\Kernel;
use Illuminate\Foundation\Http\Middleware\PreventRequestsDuringMaintenance;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Route;
use PHPUnit\Framework\Attributes\DataProvider;

/** What Embudo and the package say to each other, and what each answer looks like from outside. */
final class ProtocolTest extends TestCase
{
    public function testWhatEmbudoHasAddedIsTakenOutToTheByte(): void
    {
        $seen = [];
        $this->with(static function () use (&$seen): void {
            Route::post('api/qr', static function (Request $request) use (&$seen): array {
                $seen[] = [$request->getContent(), $request->all(), $request->header('content-length')];

                return [];
            });
        });
        $sent = ['{"sessionId":"s","qr":"2@é\/","data":{},"list":[],"n":1.0,"big":12345678901234567890}', '{ "session_id": "t" , "qr": "x" }'];
        $items = substr($sent[0], 0, -1).',"session_id":"s","timestamp":7},'.substr($sent[1], 0, -1).',"timestamp":8}';
        $embudo = '{"epoch":"e","items":[{"seq":1,"at":5,"added":["session_id","timestamp"]},{"seq":2,"at":6,"added":["timestamp"]}]}';
        $answer = $this->send("{\"qrs\":[{$items}],\"embudo\":{$embudo}}")->assertOk();
        self::assertSame($sent, array_column($seen, 0));
        self::assertSame(['session_id' => 't', 'qr' => 'x'], $seen[1][1]);
        self::assertSame((string) strlen($sent[0]), $seen[0][2]);
        self::assertSame(['s', 't'], array_column($answer->json('results'), 'session_id'), 'a line names the session as Embudo does');
    }

    public function testWithoutEmbudosMemberItemsAreServedAsTheyAre(): void
    {
        $seen = null;
        $this->with(static function () use (&$seen): void {
            Route::post('api/qr', static function (Request $request) use (&$seen): array {
                $seen = $request->getContent();

                return [];
            });
        });
        foreach (['null', '[]', '{"epoch":7,"items":[]}', '{"epoch":"e","items":[]}', '{"epoch":"e","items":[{"seq":"x","added":["qr"]}]}'] as $embudo) {
            $this->send("{\"qrs\":[{\"session_id\":\"s\",\"qr\":\"x\",\"timestamp\":1}],\"embudo\":{$embudo}}")->assertJson(['processed' => 1]);
            self::assertSame('{"session_id":"s","qr":"x","timestamp":1}', $seen);
        }
    }

    public function testEveryAnswerOfThePackagesHasItsMark(): void
    {
        $this->batch([self::qr(1)])->assertOk()->assertHeader('x-embudo-batch', '2');
        $this->send('{}')->assertStatus(422)->assertHeader('x-embudo-batch', '2');
        $this->with(static fn () => Route::post('api/qr', static fn () => abort(401)));
        $this->batch([self::qr(1)])->assertUnauthorized()->assertHeader('x-embudo-batch', '2');
        $this->with(static fn () => Route::post('api/qr/batch', static fn () => ['mine' => true]));
        $this->batch([self::qr(1)])->assertOk()->assertHeaderMissing('x-embudo-batch');
        $this->postJson('/api/qr', self::qr(1))->assertHeaderMissing('x-embudo-batch');
    }

    public function testATransactionThatAnItemLeavesOpenMakesIt500AndIsReported(): void
    {
        $this->with(static function ($app): void {
            Route::post('api/qr', static function (Request $request): array {
                if ($request->input('qr') === 'open') {
                    DB::beginTransaction();
                }
                if ($request->input('qr') === 'raw') {
                    DB::getPdo()->beginTransaction();
                }
                DB::table('accounts')->insert($request->only('session_id', 'qr'));

                return [];
            });
        });
        $answer = $this->batch([self::qr(1), self::qr(2, 'open'), self::qr(3), self::qr(4, 'raw'), self::qr(5)])->assertOk();
        self::assertSame([200, 500, 200, 500, 200], array_column($answer->json('results'), 'status'));
        self::assertSame(['2@a', null, '2@a', null, '2@a'], array_map(fn ($n) => $this->stored($n), range(1, 5)));
        self::assertStringContainsString('left a transaction open', (string) file_get_contents($this->app->storagePath().'/laravel.log'));
    }

    public function testATransactionAroundTheBatchStays(): void
    {
        DB::beginTransaction();
        $this->batch([self::qr(1), self::qr(2)])->assertJson(['processed' => 2]);
        self::assertSame(1, DB::transactionLevel());
        DB::rollBack();
        self::assertNull($this->stored(1));
    }

    /** @dataProvider maintenances */
    #[DataProvider('maintenances')]
    public function testWhileLaravelIsDownABatchIsAnsweredAsASingleIs(array $down): void
    {
        $this->maintain();
        $this->down($down);
        $single = $this->postJson('/api/qr', self::qr(1));
        $batch = $this->batch([self::qr(1), self::qr(2)]);
        self::assertSame($single->getStatusCode(), $batch->getStatusCode());
        self::assertSame($single->getContent(), $batch->getContent());
        foreach (['content-type', 'retry-after', 'location', 'refresh', 'x-embudo-batch'] as $header) {
            self::assertSame($single->headers->get($header), $batch->headers->get($header), $header);
        }
        self::assertSame([null, null], [$this->stored(1), $this->stored(2)]);
        unlink($this->app->storagePath().'/framework/down');
        $this->batch([self::qr(1), self::qr(2)])->assertJson(['processed' => 2]);
    }

    public static function maintenances(): array
    {
        $rest = ['except' => [], 'redirect' => null, 'retry' => null, 'refresh' => null, 'secret' => null, 'status' => 503, 'template' => null];

        return array_map(static fn ($form) => [$form + $rest], [
            '--retry=60' => ['retry' => 60],
            '--render' => ['retry' => 60, 'template' => '<html>down</html>'],
            '--redirect' => ['redirect' => '/soon'],
            '--status=200' => ['status' => 200],
        ]);
    }

    public function testWhatMaintenanceLetsThroughSinglyItLetsThroughInABatch(): void
    {
        $this->maintain(null, DownButSingles::class);
        $this->down(['except' => [], 'redirect' => null, 'retry' => null, 'refresh' => null, 'secret' => null, 'status' => 503, 'template' => null]);
        $this->postJson('/api/qr', self::qr(1))->assertOk();
        $this->batch([self::qr(1), self::qr(2)])->assertJson(['processed' => 2]);
    }

    public function testWhatMaintenanceInterruptsHasNoLine(): void
    {
        $this->maintain(function (Request $request): void {
            if ($request->input('qr') === 'down') {
                $this->down(['except' => [], 'redirect' => null, 'retry' => null, 'refresh' => null, 'secret' => null, 'status' => 200, 'template' => null]);
            }
        });
        $answer = $this->batch([self::qr(1), self::qr(2, 'down'), self::qr(3), self::qr(4)])->assertOk();
        self::assertSame([200, 200], array_column($answer->json('results'), 'status'));
    }

    private function maintain(?\Closure $do = null, string $middleware = PreventRequestsDuringMaintenance::class): void
    {
        $this->with(static function ($app) use ($do, $middleware): void {
            $app->make(Kernel::class)->pushMiddleware($middleware);
            Route::post('api/qr', static function (Request $request) use ($do): array {
                if ($do !== null) {
                    $do($request);
                }
                DB::table('accounts')->insertOrIgnore($request->only('session_id', 'qr'));

                return [];
            });
        });
    }

    private function down(array $payload): void
    {
        @mkdir($this->app->storagePath().'/framework');
        file_put_contents($this->app->storagePath().'/framework/down', json_encode($payload));
    }

    private function send(string $body): \Illuminate\Testing\TestResponse
    {
        return $this->call('POST', '/api/qr/batch', [], [], [], ['CONTENT_TYPE' => 'application/json', 'HTTP_ACCEPT' => 'application/json'], $body);
    }
}

final class DownButSingles extends PreventRequestsDuringMaintenance
{
    protected $except = ['api/qr'];
}
