<?php

namespace App\Http\Controllers\Panel;

use App\Models\Account;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;

class QrController
{
    /** Stores a QR, and leaves the state alone: that is told by itself. */
    public function store(Request $request): JsonResponse
    {
        $input = validator($request->all(), [
            'session_id' => 'required|uuid',
            'qr' => 'required|string',
        ])->validate();
        $values = ['qr' => $input['qr']];
        Account::store($input['session_id'], 'qr', $values, $request->input('timestamp'), [StatusController::class, 'answer']);

        return response()->json(['success' => true]);
    }
}
