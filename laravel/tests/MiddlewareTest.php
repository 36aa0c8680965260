<?php

namespace Embudo\Laravel\Tests;

use Closure;
use Illuminate\Auth\Middleware\Authenticate;
use Illuminate\Cache\RateLimiting\Limit;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\RateLimiter;
use Illuminate\Support\Facades\Route;

final class MiddlewareTest extends TestCase
{
    public function testABatchCountsOnceForTheThrottle(): void
    {
        config(['app.throttle_per_minute' => 2]);
        $items = [self::qr(1), self::qr(2), self::qr(3)];
        $this->batch($items)->assertOk()->assertHeader('x-ratelimit-remaining', '1');
        $this->batch($items)->assertOk();
        $this->batch([self::qr(4)])->assertStatus(429)->assertHeader('retry-after');
        self::assertNull($this->stored(4));
        $this->postJson('/api/qr', self::qr(4))->assertStatus(429);
    }

    public function testAThrottleOfOnesOwnCanBeNamed(): void
    {
        Counted::$times = 0;
        $this->with(static fn () => Route::post('api/qr', static fn () => [])->middleware(Counted::class));
        $this->batch([self::qr(1), self::qr(2)])->assertOk();
        self::assertSame(2, Counted::$times, 'middleware that nobody named runs for each item');
        config(['embudo.once' => [Counted::class]]);
        $this->batch([self::qr(1), self::qr(2)])->assertOk();
        self::assertSame(3, Counted::$times);
    }

    public function testWithoutACredentialTheWholeBatchIs401(): void
    {
        $this->with(static fn () => Route::post('api/qr', static fn () => [])->middleware(Authenticate::class.':api'));
        $this->batch([self::qr(1), self::qr(2)])->assertUnauthorized()->assertJson(['message' => 'Unauthenticated.']);
    }

    public function testAGuardOfOnesOwnThatTurnsTwoItemsAwayTurnsAllAway(): void
    {
        Token::$asked = 0;
        $this->with(static fn () => Route::post('api/qr', static fn () => [])->middleware(Token::class));
        $items = [self::qr(1), self::qr(2), self::qr(3)];
        $this->batch($items)->assertUnauthorized()->assertJson(['message' => 'no token'])->assertHeader('x-embudo-batch', '2');
        self::assertSame(2, Token::$asked, 'one may be turned away for its session; nobody asks a third time');
        $this->batch([self::qr(1)])->assertUnauthorized();
        $this->batch($items, ['x-token' => 'good'])->assertJson(['processed' => 3]);
    }

    public function testAnItemThatIsTurnedAwayForItsSessionTurnsNoOtherAway(): void
    {
        $this->with(static fn () => Route::post('api/qr', static fn (Request $request) => abort_if($request->input('qr') === 'foreign', 401) ?? []));
        $answer = $this->batch([self::qr(1, 'foreign'), self::qr(2), self::qr(3, 'foreign')])->assertOk();
        self::assertSame([401, 200, 401], array_column($answer->json('results'), 'status'));
    }

    public function testALimitBySessionCountsEachSessionsItems(): void
    {
        $this->with(static function (): void {
            RateLimiter::for('session', static fn (Request $request) => Limit::perMinute(2)->by($request->input('session_id')));
            Route::post('api/qr', static fn () => [])->middleware('throttle:session');
        });
        for ($batch = 1; $batch <= 2; $batch++) {
            $answer = $this->batch(array_map(static fn ($n) => self::qr($n), range(1, 5)))->assertOk();
            self::assertSame(array_fill(0, 5, 200), array_column($answer->json('results'), 'status'));
        }
        $answer = $this->batch([self::qr(1), self::qr(6), self::qr(2)])->assertOk();
        self::assertSame([429, 200, 429], array_column($answer->json('results'), 'status'));
    }

    public function testOfTwoLimitsTheCommonOneCountsOnceForABatch(): void
    {
        $this->with(static function (): void {
            RateLimiter::for('both', static fn (Request $request) => [
                Limit::perMinute(3)->by($request->ip()),
                Limit::perMinute(2)->by($request->input('session_id')),
            ]);
            Route::post('api/qr', static fn () => [])->middleware('throttle:both');
        });
        $items = array_map(static fn ($n) => self::qr($n), range(1, 5));
        $this->batch($items)->assertJson(['processed' => 5]);
        $this->batch($items)->assertJson(['processed' => 5]);
        $answer = $this->batch([self::qr(1), self::qr(9)])->assertOk();
        self::assertSame([429, 200], array_column($answer->json('results'), 'status'), 'the session has had its two');
        $this->batch([self::qr(10), self::qr(11)])->assertStatus(429)->assertHeader('retry-after');
    }

    public function testMiddlewareThatRefusesOneItemRefusesThatOne(): void
    {
        $this->with(static fn () => Route::post('api/qr', static fn () => [])->middleware(Owner::class));
        $answer = $this->batch([self::qr(1), self::qr(2, 'foreign'), self::qr(3)])->assertJson(['processed' => 2]);
        self::assertSame([200, 403, 200], array_column($answer->json('results'), 'status'));
        self::assertSame('not yours', $answer->json('results.1.message'));
    }
}

final class Counted
{
    public static int $times = 0;

    public function handle(Request $request, Closure $next)
    {
        self::$times++;

        return $next($request);
    }
}

final class Token
{
    public static int $asked = 0;

    public function handle(Request $request, Closure $next)
    {
        self::$asked++;

        return $request->header('x-token') === 'good' ? $next($request) : response()->json(['message' => 'no token'], 401);
    }
}

final class Owner
{
    public function handle(Request $request, Closure $next)
    {
        return $request->input('qr') === 'foreign' ? abort(403, 'not yours') : $next($request);
    }
}
