<?php

namespace Embudo\Laravel\Tests;

use Illuminate\Contracts\Console\Kernel as Console;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Http\Request;
use Illuminate\Routing\Middleware\ValidateSignature;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Route;

final class CommandsTest extends TestCase
{
    public function testTheCheckPassesWhereAllIsWell(): void
    {
        [$code, $output] = $this->artisanOf('embudo:check', ['--file' => [$this->fileOf("process_control_timeout = 30s\nclient_max_body_size 1m;\nmemory_limit = 128M\n")]]);
        self::assertSame(0, $code, $output);
        self::assertStringContainsString('POST /api/qr has a batch route, /api/qr/batch', $output);
        self::assertStringContainsString('POST /api/whatsapp/status has a batch route', $output);
        self::assertStringContainsString('ThrottleRequests:api: a limit that all items share counts a batch once', $output);
        self::assertStringContainsString('0 wrong, 0 doubtful', $output);
    }

    public function testTheCheckFailsWithoutASingleRoute(): void
    {
        $this->with(static fn ($app) => $app['config']->set('embudo.prefixes', ['v9']));
        [$code, $output] = $this->artisanOf('embudo:check');
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('there is no single route', $output);
    }

    public function testTheCheckFailsWhereRoutesWereCachedBefore(): void
    {
        $this->with(static fn ($app) => $app['config']->set('embudo.enabled', false));
        [$code, $output] = $this->artisanOf('embudo:check');
        self::assertSame(1, $code);
        self::assertStringContainsString('POST /api/qr has no batch route /api/qr/batch', $output);
    }

    public function testTheCheckNamesMiddlewareThatCannotWork(): void
    {
        $this->with(static fn () => Route::post('api/qr', static fn () => [])->middleware(ValidateSignature::class));
        [$code, $output] = $this->artisanOf('embudo:check');
        self::assertSame(1, $code);
        self::assertStringContainsString('a signed address is the single route\'s', $output);
    }

    public function testTheCheckSaysWhatWasPutBeforeIt(): void
    {
        $this->app->make(Kernel::class)->prependMiddleware(Counted::class);
        [$code, $output] = $this->artisanOf('embudo:check');
        self::assertSame(1, $code);
        self::assertStringContainsString('not the first of the global middleware', $output);
    }

    public function testTheCheckReadsLimits(): void
    {
        $file = $this->fileOf("post_max_size = 8K\nphp_admin_value[memory_limit] = 32M\nrequest_terminate_timeout = 5s\nclient_max_body_size 64k;\n");
        [$code, $output] = $this->artisanOf('embudo:check', ['--file' => [$file]]);
        self::assertSame(0, $code);
        foreach (['post_max_size is 8K', 'memory_limit is 32M', 'request_terminate_timeout is 5s', 'client_max_body_size is 64k', 'process_control_timeout is 0'] as $limit) {
            self::assertMatchesRegularExpression("~doubtful +{$limit}~", $output);
        }
        self::assertStringContainsString('5 doubtful', $output);
        self::assertSame(1, $this->artisanOf('embudo:check', ['--file' => [$file], '--strict' => true])[0]);
    }

    public function testATryThatDiffersInNothingKeepsNothing(): void
    {
        [$code, $output] = $this->artisanOf('embudo:try', ['route' => 'api/qr', '--force' => true]);
        self::assertSame(0, $code, $output);
        self::assertStringContainsString('Nothing differs.', $output);
        self::assertSame(0, DB::table('accounts')->count());
    }

    public function testATryShowsWhatAStaticCarriesOver(): void
    {
        Counted::$times = 0;
        $this->with(static fn () => Route::post('api/qr', static function (Request $request): array {
            if (Counted::$times++ > 1) {
                DB::table('accounts')->count();
                abort(409, 'the third');
            }

            return [];
        }));
        [$code, $output] = $this->artisanOf('embudo:try', ['--force' => true]);
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('answer of item 2', $output);
        self::assertStringContainsString('select count(*)', $output);
    }

    public function testATryOfARouteThatIsNotThere(): void
    {
        self::assertSame(2, $this->artisanOf('embudo:try', ['route' => 'api/none', '--force' => true])[0]);
        self::assertSame(2, $this->artisanOf('embudo:try', ['--item' => 'no JSON', '--force' => true])[0]);
    }

    public function testBothExplainThemselves(): void
    {
        foreach (['embudo:check' => 'deploy scripts', 'embudo:try' => 'rolled back otherwise'] as $command => $words) {
            self::assertStringContainsString($words, $this->artisanOf('help', ['command_name' => $command])[1]);
        }
    }

    /** @return array{int, string} */
    private function artisanOf(string $command, array $arguments = []): array
    {
        $console = $this->app->make(Console::class);
        $code = $console->call($command, $arguments + ['--no-interaction' => true]);

        return [$code, $console->output()];
    }

    private function fileOf(string $text): string
    {
        file_put_contents($file = $this->app->storagePath().'/limits.conf', $text);

        return $file;
    }
}
