<?php

namespace App\Http\Controllers\Panel;

use App\Models\Account;
use Illuminate\Http\JsonResponse;

class StopController
{
    /** A user of the panel stops a session; the gateway is told nothing, and goes on with its QRs. */
    public function __invoke(string $sessionId): JsonResponse
    {
        Account::store($sessionId, 'stop', ['estado_qr' => 'inactive', 'reason' => 'stopped'], null, [StatusController::class, 'answer']);

        return response()->json(['success' => true]);
    }
}
