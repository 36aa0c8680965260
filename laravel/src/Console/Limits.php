<?php

namespace Embudo\Laravel\Console;

/**
 * The limits of PHP and of the web server, as their files say them.
 *
 * The command line has a configuration of its own, so PHP cannot be asked: PHP-FPM's files are read, and nginx's.
 */
final class Limits
{
    private const FPM_INI = ['/etc/php/*/fpm/php.ini', '/usr/local/etc/php/php.ini', '/etc/php.ini'];

    private const FPM_CONF = ['/etc/php/*/fpm/php-fpm.conf', '/etc/php/*/fpm/pool.d/*.conf', '/usr/local/etc/php-fpm.conf', '/usr/local/etc/php-fpm.d/*.conf', '/etc/php-fpm.conf', '/etc/php-fpm.d/*.conf'];

    private const NGINX = ['/etc/nginx/nginx.conf', '/etc/nginx/conf.d/*.conf', '/etc/nginx/sites-enabled/*', '/usr/local/etc/nginx/nginx.conf'];

    /** @var array<string, array{string, string}> what a name is set to, and in which file */
    private array $found = [];

    /** @param array<int, string> $files instead of the usual places */
    public function __construct(array $files = [])
    {
        $given = $files !== [];
        foreach (self::existing($given ? $files : self::FPM_INI) as $file) {
            $this->read($file, '~^\s*(post_max_size|memory_limit|max_execution_time|output_buffering|opcache\.enable)\s*=\s*"?([^";\s]+)~m');
        }
        foreach (self::existing($given ? $files : self::FPM_CONF) as $file) {
            $this->read($file, '~^\s*(request_terminate_timeout|process_control_timeout)\s*=\s*"?([^";\s]+)~m');
            // A pool says more than php.ini.
            $this->read($file, '~^\s*php_(?:admin_)?(?:value|flag)\[(post_max_size|memory_limit|max_execution_time)\]\s*=\s*"?([^";\s]+)~m');
        }
        foreach (self::existing($given ? $files : self::NGINX) as $file) {
            $this->read($file, '~^\s*(client_max_body_size|fastcgi_read_timeout)\s+([^;\s]+);~m');
        }
    }

    /** @return array{string, string}|null value and file */
    public function get(string $name): ?array
    {
        return $this->found[$name] ?? null;
    }

    public static function bytes(string $text): int
    {
        $unit = strtolower(substr(trim($text), -1));

        return (int) $text * (['k' => 1 << 10, 'm' => 1 << 20, 'g' => 1 << 30][$unit] ?? 1);
    }

    public static function seconds(string $text): int
    {
        $unit = strtolower(substr(trim($text), -1));

        return (int) $text * (['m' => 60, 'h' => 3600, 'd' => 86400][$unit] ?? 1);
    }

    /**
     * @param  array<int, string>  $patterns
     * @return array<int, string>
     */
    private static function existing(array $patterns): array
    {
        return array_filter(array_merge([], ...array_map(static fn ($pattern) => glob($pattern) ?: [], $patterns)), 'is_readable');
    }

    private function read(string $file, string $pattern): void
    {
        preg_match_all($pattern, (string) file_get_contents($file), $lines, PREG_SET_ORDER);
        foreach ($lines as [, $name, $value]) {
            $this->found[$name] = [$value, $file];
        }
    }
}
