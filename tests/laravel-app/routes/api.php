<?php

use App\Http\Controllers\QrController;
use App\Http\Controllers\StatusController;
use Illuminate\Support\Facades\Route;

/* No batch route: those are the package's affair. */
Route::post('qr', [QrController::class, 'store']);
Route::post('whatsapp/status', [StatusController::class, 'store']);
Route::get('whatsapp/status/{session_id}', [StatusController::class, 'show']);
