<?php

namespace App\Http\Controllers;

use App\Models\Account;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;

class StatusController
{
    /** Stores the state of a session. */
    public function store(Request $request): JsonResponse
    {
        $input = validator($request->all(), [
            'session_id' => 'required|uuid',
            'estado_qr' => 'required|string|in:pending,active,connecting,inactive',
        ])->validate();
        $values = ['estado_qr' => $input['estado_qr']];
        Account::store($input['session_id'], 'status', $values, $request->input('timestamp'), [self::class, 'answer']);

        return response()->json(['success' => true, 'message' => 'state stored']);
    }

    /** Tells the state of a session; a gateway sends no QR of a session that is not found. */
    public function show(string $sessionId): JsonResponse
    {
        $account = Account::query()->find($sessionId);
        if ($account === null) {
            return response()->json(['error' => 'Account not found'], 404);
        }

        return response()->json(self::answer($account));
    }

    /** @return array<string, string> */
    public static function answer(Account $account): array
    {
        return ['estado_qr' => $account->estado_qr, 'status' => $account->estado_qr];
    }
}
