<?php

use App\Http\Controllers\Panel\QrController;
use App\Http\Controllers\Panel\StatusController;
use App\Http\Controllers\Panel\StopController;
use Illuminate\Support\Facades\Route;

/* What the gateway calls has the paths of the other application; the last route is for the panel's own users. */
Route::post('qr', [QrController::class, 'store']);
Route::post('whatsapp/status', [StatusController::class, 'store']);
Route::get('whatsapp/status/{session_id}', [StatusController::class, 'show']);
Route::post('panel/stop/{session_id}', StopController::class);
