<?php

namespace App\Http\Controllers\Panel;

use App\Models\Account;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;

class StatusController
{
    /** Stores the state of a session, and whose phone it is, or why it ended. A session that is up shows no QR. */
    public function store(Request $request): JsonResponse
    {
        $input = validator($request->all(), [
            'session_id' => 'required|uuid',
            'estado_qr' => 'required|string|in:pending,active,connecting,inactive',
            'phone' => 'nullable|string',
            'reason' => 'nullable|string',
        ])->validate();
        $values = [
            'estado_qr' => $input['estado_qr'],
            'phone' => $input['phone'] ?? null,
            'reason' => $input['reason'] ?? null,
        ];
        if ($values['estado_qr'] === 'active') {
            $values['qr'] = null;
        }
        Account::store($input['session_id'], 'status', $values, $request->input('timestamp'), [self::class, 'answer']);

        return response()->json(['success' => true]);
    }

    /** Tells all that the panel shows of a session. */
    public function show(string $sessionId): JsonResponse
    {
        $account = Account::query()->find($sessionId);
        if ($account === null) {
            return response()->json(['error' => 'Account not found'], 404);
        }

        return response()->json(self::answer($account));
    }

    /** @return array<string, string|null> */
    public static function answer(Account $account): array
    {
        return [
            'session_id' => $account->session_id,
            'estado_qr' => $account->estado_qr,
            'qr' => $account->qr,
            'phone' => $account->phone,
            'reason' => $account->reason,
            'updated_at' => gmdate('Y-m-d\TH:i:s', intdiv($account->updated_ms, 1000)).sprintf('.%03dZ', $account->updated_ms % 1000),
        ];
    }
}
