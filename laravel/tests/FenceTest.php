<?php

namespace Embudo\Laravel\Tests;

use Illuminate\Support\Facades\Cache;
use Illuminate\Support\Facades\Route;

final class FenceTest extends TestCase
{
    protected function setUp(): void
    {
        $this->changes = static fn ($app) => $app['config']->set('embudo.fence.enabled', true);
        parent::setUp();
    }

    public function testAnOlderItemIsPassedOver(): void
    {
        $this->batch([self::qr(1, 'new', 20)]);
        $this->batch([self::qr(1, 'old', 19)])->assertJson([
            'processed' => 1,
            'results' => [['status' => 200, 'skipped' => true, 'reason' => 'stale']],
        ]);
        self::assertSame('new', $this->stored(1));
    }

    public function testTheSameItemAgainANewerOneAndAnotherSessionsAreServed(): void
    {
        $this->batch([self::qr(1, 'a', 20)]);
        $answer = $this->batch([self::qr(1, 'b', 20), self::qr(1, 'c', 21), self::qr(2, 'd', 5)]);
        self::assertSame([null, null, null], array_map(fn ($n) => $answer->json("results.{$n}.skipped"), [0, 1, 2]));
        self::assertSame(['c', 'd'], [$this->stored(1), $this->stored(2)]);
    }

    public function testAQrIsFencedByAStateOfItsSession(): void
    {
        $state = ['session_id' => self::uuid(1), 'estado_qr' => 'active', 'timestamp' => 30];
        $this->postJson('/api/whatsapp/status/batch', ['statuses' => [$state]])->assertJson(['processed' => 1]);
        $this->batch([self::qr(1, 'old', 29)]);
        self::assertNull($this->stored(1));
    }

    public function testAnItemThatWasRefusedDoesNotMoveTheFence(): void
    {
        $this->batch([['session_id' => self::uuid(1), 'timestamp' => 50]])->assertJson(['results' => [['status' => 422]]]);
        $this->batch([self::qr(1, 'a', 40)]);
        self::assertSame('a', $this->stored(1));
    }

    public function testAnItemWithoutATimestampIsNotFenced(): void
    {
        $this->batch([self::qr(1, 'a', 40)]);
        $this->batch([self::qr(1, 'b')]);
        self::assertSame('b', $this->stored(1));
    }

    public function testTheLockIsGivenBackWhenTheControllerThrows(): void
    {
        $this->with(static function ($app): void {
            $app['config']->set('embudo.fence.enabled', true);
            Route::post('api/qr', static fn () => abort(500));
        });
        $this->batch([self::qr(1, 'a', 40)])->assertJson(['results' => [['status' => 500]]]);
        self::assertTrue(Cache::lock('embudo:'.sha1(self::uuid(1)).':lock', 1)->get());
    }

    public function testItIsOffUnlessTurnedOn(): void
    {
        $this->with(static fn () => null);
        $this->batch([self::qr(1, 'new', 20)]);
        $this->batch([self::qr(1, 'old', 19)]);
        self::assertSame('old', $this->stored(1));
    }

    public function testAnItemOfALowerSequenceIsPassedOver(): void
    {
        $this->sequence('e', [[1, 'new', 20]]);
        $answer = $this->sequence('e', [[1, 'old', 19], [2, 'other', 3]]);
        self::assertSame(['session_id' => self::uuid(1), 'status' => 200, 'skipped' => true, 'reason' => 'stale'], $answer->json('results.0'));
        $answer->assertJson(['processed' => 2, 'skipped' => 1]);
        self::assertSame(['new', 'other'], [$this->stored(1), $this->stored(2)]);
    }

    public function testAnEqualSequenceIsARepeatAndRuns(): void
    {
        $this->sequence('e', [[1, 'a', 20]]);
        $this->sequence('e', [[1, 'b', 20]])->assertJsonMissing(['skipped' => true]);
        self::assertSame('b', $this->stored(1));
    }

    public function testAnotherEpochBeginsAnewAndNoneIsOlder(): void
    {
        $this->sequence('e', [[1, 'a', 20]]);
        foreach ([['f', 3, 'b'], ['e', 1, 'c'], ['a', 1, 'd']] as [$epoch, $seq, $qr]) {
            $this->sequence($epoch, [[1, $qr, $seq]]);
            self::assertSame($qr, $this->stored(1));
        }
        $this->sequence('a', [[1, 'x', 0]]);
        self::assertSame('d', $this->stored(1), 'within an epoch the sequence holds');
    }

    public function testTheTimestampDoesNotFenceWhereThereIsASequence(): void
    {
        $this->batch([self::qr(1, 'a', 40)]);
        $this->sequence('e', [[1, 'b', 1]], ['timestamp' => 30]);
        self::assertSame('b', $this->stored(1));
    }

    public function testASequenceThatWasRefusedDoesNotMoveTheFence(): void
    {
        $this->sequence('e', [[1, null, 50]])->assertJson(['results' => [['status' => 422]]]);
        $this->sequence('e', [[1, 'a', 40]]);
        self::assertSame('a', $this->stored(1));
    }

    /** @param array<int, array{int, ?string, int}> $items session, QR and sequence */
    private function sequence(string $epoch, array $items, array $more = []): \Illuminate\Testing\TestResponse
    {
        $qrs = array_map(static fn ($item) => array_filter(self::qr($item[0], (string) $item[1])) + $more, $items);
        $said = array_map(static fn ($item) => ['seq' => $item[2], 'at' => 1, 'added' => array_keys($more)], $items);

        return $this->postJson('/api/qr/batch', ['qrs' => $qrs, 'embudo' => ['epoch' => $epoch, 'items' => $said]]);
    }
}
