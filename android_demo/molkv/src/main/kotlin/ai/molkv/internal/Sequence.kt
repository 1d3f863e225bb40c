package ai.molkv.internal

import ai.molkv.ContextLengthException
import ai.molkv.ModelEntry
import ai.molkv.Statistics
import ai.molkv.TokenIdException
import ai.molkv.UsageException
import java.nio.ByteBuffer

/**
 * One sequence running through a graph, rows read by token id as it goes. Blocking, and for one
 * thread at a time, but for [interrupt].
 *
 * @param blob null where the model has no experts
 * @param chunk the most tokens that prefill runs at once
 */
internal class Sequence(
    val model: ModelEntry,
    private val graph: OnnxGraph,
    private val blob: ExpertBlob?,
    chunk: Int,
) : AutoCloseable {
    private val chunk = chunk.coerceAtMost(model.context.toInt())
    private val window: ExpertWindow? =
        blob?.let { ExpertWindow(it, model.expertWindow.toInt(), this.chunk) }
    private val vocabularySize = model.vocabSize.toInt()
    private var counted = Statistics(windowBytes = window?.bytes ?: 0)
    private var readBefore = blob?.read ?: (0L to 0L)
    private var broken = false

    /** Tokens that it has. */
    var position = 0L
        private set

    val isFull: Boolean get() = position == model.context

    val statistics: Statistics
        get() {
            val (rows, bytes) = blob?.read ?: return counted
            return counted.copy(
                rowsRead = rows - readBefore.first,
                bytesRead = bytes - readBefore.second,
            )
        }

    /** Starts a new sequence. */
    fun restart() {
        // The self-attention cache needs no clearing: only positions before the current are read.
        position = 0
        broken = false
        window?.reset()
    }

    fun resetStatistics() {
        counted = Statistics(windowBytes = counted.windowBytes)
        readBefore = blob?.read ?: (0L to 0L)
    }

    /** Ends what runs, and what is run next, with [GraphTerminated], until [resume]. Any thread. */
    fun interrupt(): Unit = graph.terminate()

    fun resume(): Unit = graph.resume()

    /** The stored bytes of a token's row; null without experts. */
    fun row(tokenId: Long): ByteArray? = blob?.row(tokenId)

    /**
     * Appends tokens in chunks; while the graph runs one, the rows of the next are read.
     *
     * @param every whether [take] gets the logits of every token, or of the last one alone
     * @param between called before each chunk; may throw to end
     * @param take gets float32 [rows, vocabulary], chunk by chunk
     */
    fun prefill(
        tokenIds: LongArray,
        every: Boolean = false,
        between: () -> Unit = {},
        take: (logits: ByteBuffer, rows: Int) -> Unit,
    ) {
        check(tokenIds)
        var next = prefetch(tokenIds, 0)
        try {
            for (first in tokenIds.indices step chunk) {
                between()
                val count = minOf(chunk, tokenIds.size - first)
                val began = System.nanoTime()
                unlessItFails {
                    next?.use { rows -> lookUp { window!!.append(rows) } }
                    next = prefetch(tokenIds, first + count)
                    graph.run(tokenIds, first, count, position, window, every) { logits ->
                        val last = first + count == tokenIds.size
                        if (every || last) take(logits, if (every) count else 1)
                    }
                    position += count
                }
                counted =
                    counted.copy(
                        prefillTokens = counted.prefillTokens + count,
                        prefillSeconds = counted.prefillSeconds + secondsSince(began),
                    )
            }
        } finally {
            next?.close()
        }
    }

    /** Appends one token: one row is read, one position computed. */
    fun step(
        tokenId: Long,
        take: (logits: ByteBuffer) -> Unit,
    ) {
        val ids = longArrayOf(tokenId)
        check(ids)
        val began = System.nanoTime()
        unlessItFails {
            window?.let { lookUp { it.append(tokenId) } }
            graph.run(ids, 0, 1, position, window, every = false, take = take)
            position += 1
        }
        counted =
            counted.copy(
                decodeTokens = counted.decodeTokens + 1,
                decodeSeconds = counted.decodeSeconds + secondsSince(began),
            )
    }

    /** Chooses from the logits of one position. */
    fun choose(
        sampler: TokenSampler,
        logits: ByteBuffer,
    ): Long = sampler.choose(logits, vocabularySize)

    fun setTimeToFirstToken(seconds: Double) {
        counted = counted.copy(timeToFirstToken = seconds)
    }

    override fun close() {
        graph.close()
        window?.close()
        blob?.close()
    }

    private fun prefetch(
        tokenIds: LongArray,
        first: Int,
    ): Prefetch? {
        val count = minOf(chunk, tokenIds.size - first)
        if (blob == null || count <= 0) return null
        return lookUp { blob.prefetch(tokenIds, first, count) }
    }

    private inline fun <Result> lookUp(work: () -> Result): Result {
        val began = System.nanoTime()
        val result = work()
        counted = counted.copy(lookupSeconds = counted.lookupSeconds + secondsSince(began))
        return result
    }

    /** Window and cache do not match after a step that was not finished. */
    private inline fun unlessItFails(work: () -> Unit) {
        broken = true
        work()
        broken = false
    }

    private fun check(tokenIds: LongArray) {
        if (broken) {
            throw UsageException("the sequence was interrupted within a step", "start a new one")
        }
        if (tokenIds.isEmpty()) {
            throw ContextLengthException("the prompt is empty", "give at least one token")
        }
        val room = model.context - position
        if (tokenIds.size > room) {
            throw ContextLengthException(
                "${tokenIds.size} tokens do not fit: $position of the context's ${model.context} " +
                    "are taken",
                if (room > 0) "shorten the prompt to $room tokens" else "start a new sequence",
            )
        }
        val stray = tokenIds.firstOrNull { it !in 0 until model.vocabSize } ?: return
        throw TokenIdException(
            "token id $stray is outside the vocabulary, 0 to ${model.vocabSize - 1}",
            "use the tokenizer of this bundle",
        )
    }
}

/** Seconds since a time of `System.nanoTime`. */
internal fun secondsSince(began: Long): Double = 1e-9 * (System.nanoTime() - began)
