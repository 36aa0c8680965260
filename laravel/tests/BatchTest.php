<?php

namespace Embudo\Laravel\Tests;

use Illuminate\Http\Request;
use Illuminate\Support\Facades\Request as RequestFacade;
use Illuminate\Support\Facades\Route;
use PHPUnit\Framework\Attributes\DataProvider;
use RuntimeException;
use TypeError;

final class BatchTest extends TestCase
{
    public function testEachItemIsServedByTheSingleRouteAndHasItsVerdict(): void
    {
        $this->batch([self::qr(1, '2@a'), self::qr(2, '2@b')])->assertExactJson([
            'success' => true,
            'processed' => 2,
            'results' => [
                ['session_id' => self::uuid(1), 'status' => 200],
                ['session_id' => self::uuid(2), 'status' => 200],
            ],
        ]);
        self::assertSame(['2@a', '2@b'], [$this->stored(1), $this->stored(2)]);
    }

    public function testStatesHaveABatchRouteToo(): void
    {
        $this->batch([self::qr(1)]);
        $item = ['session_id' => self::uuid(1), 'estado_qr' => 'active'];
        $this->postJson('/api/whatsapp/status/batch', ['statuses' => [$item]])->assertJson(['processed' => 1]);
        $this->getJson('/api/whatsapp/status/'.self::uuid(1))->assertJson(['estado_qr' => 'active']);
    }

    public function testAnItemThatDoesNotValidateIs422AndTheOthersAreStored(): void
    {
        $answer = $this->batch([self::qr(1), ['session_id' => 'nobody', 'qr' => '2@a'], self::qr(3)])->assertOk();
        $answer->assertJson(['success' => true, 'processed' => 2]);
        self::assertSame([200, 422, 200], array_column($answer->json('results'), 'status'));
        self::assertArrayHasKey('session_id', $answer->json('results.1.errors'));
        self::assertSame(['2@a', '2@a'], [$this->stored(1), $this->stored(3)]);
    }

    public function testAnItemThatIsNoObjectIs422(): void
    {
        $answer = $this->batch([self::qr(1), 'text', 7, null, []])->assertJson(['processed' => 1]);
        self::assertSame([200, 422, 422, 422, 422], array_column($answer->json('results'), 'status'));
    }

    /** @dataProvider throwables */
    #[DataProvider('throwables')]
    public function testAnItemWhoseControllerThrowsIs500AndTheOthersAreStored(string $class): void
    {
        $this->with(static function () use ($class): void {
            Route::post('api/qr', static function (Request $request) use ($class): array {
                throw_if($request->input('qr') === 'bad', new $class('broken'));

                return ['success' => true];
            });
        });
        $answer = $this->batch([self::qr(1), self::qr(2, 'bad'), self::qr(3)])->assertOk();
        self::assertSame([200, 500, 200], array_column($answer->json('results'), 'status'));
        self::assertStringNotContainsString('broken', $answer->getContent(), 'debug is off');
    }

    public static function throwables(): array
    {
        return [[RuntimeException::class], [TypeError::class]];
    }

    public function testATransactionThatAnItemLeavesOpenTakesNoOtherItemWithIt(): void
    {
        $this->with(static function ($app): void {
            Route::post('api/qr', static function (Request $request) use ($app): array {
                if ($request->input('qr') === 'open') {
                    $app['db']->beginTransaction();
                }
                $app['db']->table('accounts')->insert($request->only('session_id', 'qr'));

                return [];
            });
        });
        $this->batch([self::qr(1), self::qr(2, 'open'), self::qr(3)])->assertOk();
        self::assertSame(0, $this->app['db']->transactionLevel());
        self::assertSame(['2@a', null, '2@a'], array_map(fn ($n) => $this->stored($n), [1, 2, 3]));
    }

    public function testTheCurrentRequestIsTheItemInsideAndTheBatchAfterwards(): void
    {
        $seen = [];
        $this->with(static function ($app) use (&$seen): void {
            Route::post('api/qr', static function (Request $request) use ($app, &$seen): array {
                $seen[] = [request()->input('qr'), RequestFacade::path(), $app['url']->current(), $request->route()->uri()];

                return [];
            });
        });
        $this->batch([self::qr(1, 'x'), self::qr(2, 'y')]);
        $rest = ['api/qr', 'http://localhost/api/qr', 'api/qr'];
        self::assertSame([['x', ...$rest], ['y', ...$rest]], $seen);
        self::assertSame('api/qr/batch', request()->path());
        self::assertSame('api/qr/batch', RequestFacade::path());
        self::assertSame('api/qr/batch', $this->app->make(\Illuminate\Routing\Route::class)->uri());
    }

    public function testTheSingleRouteSeesTheHeadersOfTheBatchAndTheBodyOfTheItem(): void
    {
        $this->with(static function (): void {
            Route::post('api/qr', static fn (Request $request) => response()->json([
                'message' => $request->header('x-tenant').'|'.$request->ip().'|'.$request->getContent(),
            ], 409));
        });
        $raw = '{"qrs":[{"session_id":"s","qr":"2@é/","session_data":{},"n":1.0}]}';
        $server = ['CONTENT_TYPE' => 'application/json', 'HTTP_ACCEPT' => 'application/json', 'HTTP_X_TENANT' => 't', 'REMOTE_ADDR' => '10.0.0.7'];
        $answer = $this->call('POST', '/api/qr/batch', [], [], [], $server, $raw);
        $body = '{"session_id":"s","qr":"2@é/","session_data":{},"n":1.0}';
        self::assertSame("t|10.0.0.7|{$body}", $answer->json('results.0.message'));
    }

    public function testEachItemHasAControllerOfItsOwn(): void
    {
        $this->with(static fn () => Route::post('api/qr', [RememberingController::class, 'store']));
        $answer = $this->batch([self::qr(1, 'x'), self::qr(2, 'y')]);
        self::assertSame(['x', 'y'], array_column($answer->json('results'), 'reason'));
    }

    public function testWhatTheSingleRouteSkipsIsSkippedWithItsReason(): void
    {
        $body = ['success' => true, 'skipped' => true, 'reason' => 'account_not_found'];
        $this->with(static fn () => Route::post('api/qr', static fn () => $body));
        $line = ['session_id' => self::uuid(1), 'status' => 200, 'skipped' => true, 'reason' => 'account_not_found'];
        $this->batch([self::qr(1)])->assertJson(['processed' => 1, 'results' => [$line]]);
    }

    public function testARedirectIsNoSuccess(): void
    {
        $this->with(static fn () => Route::post('api/qr', static fn () => redirect('/login')));
        $this->batch([self::qr(1)])->assertJson(['processed' => 0, 'results' => [['status' => 422]]]);
    }

    /** @dataProvider invalidBatches */
    #[DataProvider('invalidBatches')]
    public function testABatchWithoutItemsIs422InLaravelsUsualShape(string $body): void
    {
        $server = ['CONTENT_TYPE' => 'application/json', 'HTTP_ACCEPT' => 'application/json'];
        $answer = $this->call('POST', '/api/qr/batch', [], [], [], $server, $body)->assertStatus(422);
        self::assertSame(['message', 'errors'], array_keys($answer->json()));
        self::assertSame(['qrs'], array_keys($answer->json('errors')));
    }

    public static function invalidBatches(): array
    {
        return array_map(static fn ($body) => [$body], ['', '{}', '[]', 'no JSON', '{"qrs":[]}', '{"qrs":"x"}', '{"qrs":{"a":{}}}', '{"qrs":null}']);
    }

    public function testABatchMayNotHaveMoreItemsThanTheConfigurationSays(): void
    {
        config(['embudo.max_items' => 2]);
        $this->batch([self::qr(1), self::qr(2)])->assertOk();
        $this->batch([self::qr(1), self::qr(2), self::qr(3)])->assertStatus(422)->assertJsonValidationErrors('qrs');
    }
}

final class RememberingController
{
    public function __construct(private Request $request)
    {
    }

    public function store(): array
    {
        return ['skipped' => true, 'reason' => $this->request->input('qr')];
    }
}
