<?php

/* What the behaviours are made of: middleware, jobs, models and requests as applications have them. */

namespace Embudo\Laravel\Tests\Conformance;

use Closure;
use Illuminate\Bus\Queueable;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Database\Eloquent\Model;
use Illuminate\Foundation\Bus\Dispatchable;
use Illuminate\Foundation\Http\FormRequest;
use Illuminate\Http\Request;
use RuntimeException;

/** Does what it was given, before the controller. */
class Before
{
    public static ?Closure $do = null;

    public function handle(Request $request, Closure $next)
    {
        return (self::$do)($request) ?? $next($request);
    }
}

/** Another one, that also ends. */
class Ending
{
    public static ?Closure $end = null;

    public function handle(Request $request, Closure $next)
    {
        return $next($request);
    }

    public function terminate(Request $request, $response): void
    {
        (self::$end)($request, $response);
    }
}

class Tenant
{
    public ?string $name = null;
}

class Remembers
{
    public array $seen = [];
}

class Account extends Model
{
    public $timestamps = false;

    public $incrementing = false;

    protected $primaryKey = 'session_id';

    protected $keyType = 'string';

    protected $fillable = ['session_id', 'qr'];

    protected static function boot(): void
    {
        parent::boot();
        static::creating(static fn (self $account) => Seen::note('creating', $account->qr));
    }
}

class User extends \Illuminate\Foundation\Auth\User
{
    public static function named(string $name): self
    {
        $user = new self();
        $user->id = $name;

        return $user;
    }
}

class Job implements ShouldQueue
{
    use Dispatchable;
    use Queueable;

    public function __construct(public string $session, public string $qr)
    {
    }

    public function handle(): void
    {
        Seen::note('job', [request()->path(), request()->input('session_id'), config('app.name')], $this->session);
        if ($this->qr === 'vip') {
            throw new RuntimeException('a job');
        }
    }
}

class QrRequest extends FormRequest
{
    public function authorize(): bool
    {
        return $this->input('qr') !== 'vip';
    }

    protected function prepareForValidation(): void
    {
        $this->merge(['region' => strtolower((string) $this->input('region'))]);
    }

    public function rules(): array
    {
        return ['session_id' => 'required|uuid', 'qr' => 'required|string', 'region' => 'in:br,ar'];
    }
}

class QrController
{
    public function __construct(private Request $request)
    {
    }

    public function store(): array
    {
        return ['skipped' => true, 'reason' => $this->request->input('qr')];
    }
}

class TrimStrings extends \Illuminate\Foundation\Http\Middleware\TrimStrings
{
    protected $except = ['qr'];
}

class TrustProxies
{
    public function handle(Request $request, Closure $next)
    {
        $request::setTrustedProxies([$request->server->get('REMOTE_ADDR')], Request::HEADER_X_FORWARDED_FOR | Request::HEADER_X_FORWARDED_PROTO);

        return $next($request);
    }
}

class OnceOf
{
    public static function session(): ?string
    {
        return once(static fn () => request()->input('session_id'));
    }
}
