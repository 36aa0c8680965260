<?php

namespace Embudo\Laravel\Tests;

use Closure;
use Illuminate\Auth\Middleware\Authenticate;
use Illuminate\Http\Request;
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

    public function testAGuardOfOnesOwnThatTurnsTheFirstItemAwayTurnsAllAway(): void
    {
        Token::$asked = 0;
        $this->with(static fn () => Route::post('api/qr', static fn () => [])->middleware(Token::class));
        $this->batch([self::qr(1), self::qr(2)])->assertUnauthorized()->assertJson(['message' => 'no token']);
        self::assertSame(1, Token::$asked, 'nobody asks a second time');
        $this->batch([self::qr(1), self::qr(2)], ['x-token' => 'good'])->assertJson(['processed' => 2]);
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
