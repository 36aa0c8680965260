<?php

namespace App\Models;

use Illuminate\Database\Eloquent\Model;
use Illuminate\Support\Facades\DB;

/**
 * The WhatsApp session of a customer: its newest QR and state.
 *
 * Every update also leaves a line in `updates`, so that a test can tell what took effect, when, and in which order.
 */
class Account extends Model
{
    public $timestamps = false;

    public $incrementing = false;

    protected $primaryKey = 'session_id';

    protected $keyType = 'string';

    protected $guarded = [];

    protected $casts = ['updated_ms' => 'integer'];

    /**
     * @param  array<string, string|null>  $values
     * @param  callable(self): array<string, string|null>  $answer  what a status read says of the account
     */
    public static function store(string $sessionId, string $route, array $values, ?int $timestamp, callable $answer): void
    {
        DB::transaction(static function () use ($sessionId, $route, $values, $timestamp, $answer): void {
            $now = (int) (microtime(true) * 1000);
            static::query()->upsert(['session_id' => $sessionId, 'updated_ms' => $now] + $values, ['session_id']);
            DB::table('updates')->insert([
                'session_id' => $sessionId,
                'route' => $route,
                'value' => $values['qr'] ?? $values['estado_qr'],
                'timestamp' => $timestamp,
                // The items of a batch share these two: nginx's number of the request, and when PHP began with it.
                'call' => request()->server('REQUEST_ID'),
                'started_ms' => (int) (request()->server('REQUEST_TIME_FLOAT') * 1000),
                'batched' => request()->headers->has('x-batch-size'),
                'at_ms' => $now,
                'says' => json_encode($answer(static::query()->findOrFail($sessionId))),
            ]);
        });
    }
}
