<?php

namespace Embudo\Laravel\Sandbox;

use Illuminate\Contracts\Foundation\Application;
use Illuminate\Database\Connection;
use Illuminate\Database\DatabaseManager;
use PDO;
use Throwable;

/**
 * Connections outlive an item, since to open one for each would cost more than the item. What they remember does not.
 */
final class Databases
{
    /** What a request may change in a connection. */
    private const CHANGED = [
        'database', 'tablePrefix', 'loggingQueries', 'queryLog', 'recordsModified', 'readOnWriteConnection', 'pretending',
        'totalQueryDuration', 'queryDurationHandlers', 'beforeExecutingCallbacks', 'beforeStartingTransaction', 'records',
    ];

    /** @var array<string, int> */
    private array $levels = [];

    /** @var array<string, array{Connection, array<string, mixed>}> */
    private array $before = [];

    /** @var mixed */
    private $config;

    /** @param Application&\Illuminate\Container\Container $app */
    public function __construct(private Application $app)
    {
        $this->config = $app['config']->get('database.connections');
        foreach ($this->connections() as $name => $connection) {
            $this->levels[$name] = $connection->transactionLevel();
            $this->before[$name] = [$connection, self::changed($connection)];
        }
    }

    /**
     * Ends the transactions that an item has left open. At the end of a request the database does; here the next item
     * would write into them, be told that all is well, and be rolled back.
     *
     * @return array<int, string> the connections that had one
     */
    public function rollBack(): array
    {
        $open = [];
        foreach ($this->connections() as $name => $connection) {
            $level = $this->levels[$name] ?? 0;
            try {
                if ($connection->transactionLevel() > $level) {
                    $open[] = $name;
                    $connection->rollBack($level);
                }
                $pdo = $connection->getRawPdo();
                // Begun without Laravel, which does not count it then.
                if ($level === 0 && $pdo instanceof PDO && $pdo->inTransaction()) {
                    $open[] = $name;
                    $pdo->rollBack();
                }
            } catch (Throwable $lost) {
                // Whatever it still holds ends with it.
                $open[] = $name;
                $this->manager()->purge($name);
            }
        }

        return array_values(array_unique($open));
    }

    /** Makes the connections forget the item. To be called while the configuration is still the item's. */
    public function forget(bool $reconnect): void
    {
        $config = $this->app['config']->get('database.connections');
        foreach ($this->connections() as $name => $connection) {
            $isOther = $config !== $this->config && ($config[$name] ?? null) !== ($this->config[$name] ?? null);
            if ($isOther || $reconnect) {
                // Another tenant's, perhaps: whoever asks for it next is given one of his own configuration.
                $this->manager()->purge($name);
            } else {
                $this->putBack($name, $connection);
            }
        }
    }

    private function putBack(string $name, Connection $connection): void
    {
        if (($this->before[$name][0] ?? null) !== $connection) {
            $this->before[$name] = [$connection, self::unused($connection)];
        }
        $values = $this->before[$name][1];
        if ($connection->getTablePrefix() !== $values['tablePrefix']) {
            // Its grammars know it, too.
            $connection->setTablePrefix($values['tablePrefix']);
        }
        Objects::write($connection, $values);
    }

    /** @return array<string, Connection> */
    private function connections(): array
    {
        $connections = $this->app->resolved('db') ? $this->manager()->getConnections() : [];

        return array_filter($connections, static fn ($connection) => $connection instanceof Connection);
    }

    private function manager(): DatabaseManager
    {
        return $this->app->make('db');
    }

    /** @return array<string, mixed> */
    private static function changed(Connection $connection): array
    {
        return array_intersect_key(Objects::read($connection), array_flip(self::CHANGED));
    }

    /**
     * What a connection that was opened in an item had before anybody changed it.
     *
     * @return array<string, mixed>
     */
    private static function unused(Connection $connection): array
    {
        $initial = array_intersect_key((new \ReflectionClass($connection))->getDefaultProperties(), self::changed($connection));
        $initial['database'] = $connection->getConfig('database');
        $initial['tablePrefix'] = (string) $connection->getConfig('prefix');

        return $initial;
    }
}
