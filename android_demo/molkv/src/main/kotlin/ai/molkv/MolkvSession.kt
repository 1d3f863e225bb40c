package ai.molkv

import ai.molkv.internal.GraphTerminated
import ai.molkv.internal.Sequence
import ai.molkv.internal.TextStream
import ai.molkv.internal.TokenSampler
import ai.molkv.internal.Tokenizer
import ai.molkv.internal.secondsSince
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.FlowCollector
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import java.nio.ByteBuffer
import java.util.concurrent.atomic.AtomicBoolean
import kotlin.coroutines.CoroutineContext
import kotlin.coroutines.coroutineContext

/**
 * Generates text from a bundle; made by [MolkvBundle.openSession].
 *
 * All functions may be called from any thread, the main one included: the work is done elsewhere.
 * A session generates one text at a time. Sessions are independent of each other.
 */
public class MolkvSession internal constructor(
    private val sequence: Sequence,
    private val tokenizer: Tokenizer?,
    private val place: String,
) : AutoCloseable {
    // Native objects are used in here only, so by one thread at a time.
    @OptIn(ExperimentalCoroutinesApi::class) // stable since kotlinx.coroutines 1.9
    private val dispatcher = Dispatchers.IO.limitedParallelism(1)
    private val generating = AtomicBoolean()
    private val closed = AtomicBoolean()
    private val updates = MutableStateFlow(sequence.statistics)
    private var sampler: TokenSampler? = null
    private var stream: TextStream? = null

    @Volatile private var cancelled = false

    /** What was done and how fast; a new value after prefill and after every token. */
    public val statistics: StateFlow<Statistics> = updates.asStateFlow()

    /** The model's sizes. */
    public val model: ModelEntry get() = sequence.model

    /** Whether it takes text; without a tokenizer ids go in and ids come out. */
    public val hasTokenizer: Boolean get() = tokenizer != null

    /**
     * Continues a prompt, token by token, when it is collected.
     *
     * The flow ends after `maxNewTokens`, before a stop id, when the context is full, or after
     * [cancel]. Cancelling the collector ends it within a step, during prefill too. The last token
     * is not part of the sequence yet: to go on without a reset, start the next prompt with it.
     *
     * Bytes that complete no character come out as U+FFFD with the last token; before a stop id
     * they are dropped.
     *
     * The flow fails with a [ContextLengthException] if the prompt is empty or too long, a
     * [TokenIdException], a [TokenizerException] if the bundle has no tokenizer, a
     * [RowCorruptException], or a [UsageException] if the session is closed or generates already.
     */
    public fun generate(
        prompt: String,
        options: GenerationOptions = GenerationOptions(),
    ): Flow<Token> = tokens(options) { encoder().encode(prompt) }

    /** Continues token ids; otherwise as for text. */
    public fun generate(
        promptIds: LongArray,
        options: GenerationOptions = GenerationOptions(),
    ): Flow<Token> {
        val ids = promptIds.copyOf()
        return tokens(options) { ids }
    }

    /**
     * The token ids of a text.
     *
     * @throws TokenizerException the bundle has no tokenizer, or the text is no Unicode
     */
    public suspend fun encode(text: String): LongArray = inSession { encoder().encode(text) }

    /** Ends the generation that is under way, if any, as if it were complete. */
    public fun cancel() {
        cancelled = true
        if (generating.get()) sequence.interrupt()
    }

    /** Starts a new sequence and new statistics. */
    public suspend fun reset() {
        exclusively {
            withContext(dispatcher) {
                checkOpen()
                sequence.restart()
                sequence.resetStatistics()
                publish()
            }
        }
    }

    /**
     * Ends what runs and frees the memory and the files. Waits for at most a part of a step. A
     * generation under way fails with a [UsageException].
     */
    override fun close() {
        if (!closed.compareAndSet(false, true)) return
        sequence.interrupt()
        runBlocking(dispatcher) {
            sampler?.close()
            stream?.close()
            sequence.close()
            tokenizer?.close()
        }
    }

    /** The stored bytes of tokens' rows; none without experts. */
    internal suspend fun row(tokenId: Long): ByteArray? = inSession { sequence.row(tokenId) }

    /** Float32 logits of every position of a new sequence, chunk by chunk. */
    internal suspend fun logits(
        tokenIds: LongArray,
        take: (logits: ByteBuffer, rows: Int) -> Unit,
    ) {
        exclusively {
            interruptible {
                withContext(dispatcher) {
                    val context = coroutineContext
                    checkOpen()
                    cancelled = false
                    sequence.resume()
                    sequence.restart()
                    sequence.prefill(tokenIds, every = true, { checkGoingOn(context) }, take)
                }
            }
        }
    }

    private fun tokens(
        options: GenerationOptions,
        prompt: () -> LongArray,
    ): Flow<Token> =
        flow {
            exclusively {
                checkOpen()
                cancelled = false
                sequence.resume()
                try {
                    interruptible { generate(prompt, options) }
                } catch (_: GraphTerminated) {
                    coroutineContext.ensureActive()
                    checkOpen() // else it was `cancel`
                } finally {
                    sampler?.close()
                    stream?.close()
                    if (!closed.get()) publish()
                }
            }
        }.flowOn(dispatcher)

    private suspend fun FlowCollector<Token>.generate(
        prompt: () -> LongArray,
        options: GenerationOptions,
    ) {
        val context = coroutineContext
        val began = System.nanoTime()
        if (options.reset) sequence.restart()
        val ids = prompt()
        val stops = options.stopIds ?: setOfNotNull(tokenizer?.endOfText)
        val sampler = TokenSampler(options.sampling).also { this@MolkvSession.sampler = it }
        var id = 0L
        sequence.prefill(ids, between = { checkGoingOn(context) }) { logits, _ ->
            id = sequence.choose(sampler, logits)
        }
        sequence.setTimeToFirstToken(secondsSince(began))
        val stream = tokenizer?.let(::TextStream).also { this@MolkvSession.stream = it }
        stream?.skip(ids)
        for (count in 1..options.maxNewTokens) {
            if (id in stops) break
            val last = count == options.maxNewTokens || sequence.isFull
            val text = stream?.push(id).orEmpty()
            publish()
            emit(Token(id, if (last) text + stream?.finish().orEmpty() else text))
            checkGoingOn(context)
            if (last) break
            sequence.step(id) { logits -> id = sequence.choose(sampler, logits) }
        }
    }

    private fun checkGoingOn(context: CoroutineContext) {
        context.ensureActive()
        if (cancelled || closed.get()) throw GraphTerminated()
    }

    /** Interrupts the graph as soon as the caller is cancelled, also while a step runs. */
    private suspend fun interruptible(work: suspend () -> Unit) {
        coroutineScope {
            var done = false
            val watch =
                launch(Dispatchers.Default, CoroutineStart.UNDISPATCHED) {
                    try {
                        awaitCancellation()
                    } finally {
                        if (!done) sequence.interrupt()
                    }
                }
            try {
                work()
            } finally {
                done = true
                watch.cancel()
            }
        }
    }

    private suspend fun exclusively(work: suspend () -> Unit) {
        if (!generating.compareAndSet(false, true)) {
            throw UsageException(
                "$place: the session generates already",
                "cancel it first, or open another session",
            )
        }
        try {
            work()
        } finally {
            generating.set(false)
        }
    }

    private suspend fun <Result> inSession(work: () -> Result): Result =
        withContext(dispatcher) {
            checkOpen()
            work()
        }

    private fun encoder(): Tokenizer =
        tokenizer ?: throw TokenizerException(
            "$place: has no tokenizer, so it takes ids, not text",
            "pass token ids, or export with a tokenizer",
        )

    private fun checkOpen() {
        if (closed.get()) throw UsageException("$place: the session is closed", "open another one")
    }

    private fun publish() {
        updates.value = sequence.statistics
    }
}
