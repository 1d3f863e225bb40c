package ai.molkv

/**
 * What a session did and how fast, since it was made or reset. Times are in seconds.
 *
 * @property prefillTokens tokens that prefill ran
 * @property prefillSeconds time it took, lookup included
 * @property decodeTokens tokens that single steps ran
 * @property decodeSeconds time they took, lookup included; sampling and text are not
 * @property lookupSeconds waiting for rows and copying them into the window, of the times above
 * @property timeToFirstToken from the start of the last generation to its first token
 * @property rowsRead rows read from storage; a token that repeats within a chunk is read once
 * @property bytesRead their bytes
 * @property windowBytes memory of the expert window
 */
public data class Statistics(
    val prefillTokens: Long = 0,
    val prefillSeconds: Double = 0.0,
    val decodeTokens: Long = 0,
    val decodeSeconds: Double = 0.0,
    val lookupSeconds: Double = 0.0,
    val timeToFirstToken: Double = 0.0,
    val rowsRead: Long = 0,
    val bytesRead: Long = 0,
    val windowBytes: Long = 0,
) {
    /** Prefill speed; 0 before any. */
    val prefillTokensPerSecond: Double
        get() = ratio(prefillTokens.toDouble(), prefillSeconds)

    /** Decode speed; 0 before any. */
    val decodeTokensPerSecond: Double
        get() = ratio(decodeTokens.toDouble(), decodeSeconds)

    /** Mean time of lookup for a token, in microseconds, prefill and decode together. */
    val lookupMicrosecondsPerToken: Double
        get() = ratio(1e6 * lookupSeconds, (prefillTokens + decodeTokens).toDouble())

    private fun ratio(
        amount: Double,
        by: Double,
    ): Double = if (by > 0) amount / by else 0.0
}
