<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Schema;

return new class extends Migration
{
    /** WAL is a property of the file: readers then never wait for a writer. It cannot be set in a transaction. */
    public $withinTransaction = false;

    public function up(): void
    {
        DB::statement('PRAGMA journal_mode = WAL');
        Schema::create('accounts', static function (Blueprint $table): void {
            $table->uuid('session_id')->primary();
            $table->text('qr')->nullable();
            $table->string('estado_qr')->default('pending');
            $table->string('phone')->nullable();
            $table->string('reason')->nullable();
            $table->unsignedBigInteger('updated_ms')->default(0);
        });
        Schema::create('updates', static function (Blueprint $table): void {
            $table->id();
            $table->uuid('session_id')->index();
            $table->string('route');
            $table->text('value');
            $table->unsignedBigInteger('timestamp')->nullable();
            $table->string('call')->nullable();
            $table->unsignedBigInteger('started_ms');
            $table->boolean('batched');
            $table->unsignedBigInteger('at_ms');
            // What a status read is answered from then on.
            $table->text('says');
        });
    }
};
