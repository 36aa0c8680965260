<?php

namespace App\Providers;

use Illuminate\Cache\RateLimiting\Limit;
use Illuminate\Foundation\Support\Providers\RouteServiceProvider as ServiceProvider;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\RateLimiter;
use Illuminate\Support\Facades\Route;

class RouteServiceProvider extends ServiceProvider
{
    public function boot(): void
    {
        RateLimiter::for('api', static function (Request $request) {
            $perMinute = (int) config('app.throttle_per_minute');

            return $perMinute === 0 ? Limit::none() : Limit::perMinute($perMinute)->by($request->ip());
        });
        $this->routes(static function (): void {
            Route::prefix('api')->middleware('api')->group(base_path('routes/'.config('app.application').'.php'));
        });
    }
}
