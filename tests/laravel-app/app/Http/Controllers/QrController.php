<?php

namespace App\Http\Controllers;

use App\Models\Account;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;

class QrController
{
    /** Stores a QR; a session that shows one waits to be scanned. */
    public function store(Request $request): JsonResponse
    {
        $input = validator($request->all(), [
            'session_id' => 'required|uuid',
            'qr' => 'required|string',
        ])->validate();
        $values = ['qr' => $input['qr'], 'estado_qr' => 'pending'];
        Account::store($input['session_id'], 'qr', $values, $request->input('timestamp'), [StatusController::class, 'answer']);

        return response()->json(['success' => true, 'message' => 'QR stored']);
    }
}
