package ai.molkv

/** Where expert rows are while a session runs. */
public enum class ExpertsMode {
    /** On storage: each row is read when it is needed. */
    STORAGE,

    /** In memory: all rows are read once, when the session is made. */
    RESIDENT,

    /** In memory if the blob has at most [RESIDENT_BYTES], else on storage. */
    AUTO,

    ;

    public companion object {
        /** The largest blob that [AUTO] keeps in memory. */
        public const val RESIDENT_BYTES: Long = 64L shl 20
    }
}

/**
 * How a session runs.
 *
 * @property threads of the graph engine; 0 chooses: one for a narrow model, else up to four
 * @property chunk the most tokens that prefill runs at once
 * @property expertsMode where expert rows are
 * @property readers threads that read rows at once, 1 to 64
 */
public data class SessionOptions(
    val threads: Int = 0,
    val chunk: Int = 128,
    val expertsMode: ExpertsMode = ExpertsMode.STORAGE,
    val readers: Int = 4,
) {
    internal fun threadsFor(hiddenSize: Int): Int =
        when {
            threads > 0 -> threads

            // The products of a narrow model are so short that threads mostly wait for each other.
            hiddenSize <= NARROW -> 1

            // More would run on a phone's slow cores, for which the fast ones then wait.
            else -> Runtime.getRuntime().availableProcessors().coerceAtMost(MOST_THREADS)
        }

    private companion object {
        const val NARROW = 256
        const val MOST_THREADS = 4
    }
}

/**
 * What one call of `generate` does.
 *
 * @property maxNewTokens the most tokens to generate
 * @property sampling how to choose them
 * @property stopIds ids that end the text; null means the tokenizer's end of text, if it has one
 * @property reset whether to start a new sequence; false appends the prompt to the one so far
 */
public data class GenerationOptions(
    val maxNewTokens: Int = 128,
    val sampling: Sampling = Sampling(),
    val stopIds: Set<Long>? = null,
    val reset: Boolean = true,
)
