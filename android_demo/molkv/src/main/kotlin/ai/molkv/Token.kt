package ai.molkv

/**
 * One generated token.
 *
 * @property id its id
 * @property text the whole characters that it completes, possibly none; empty without a tokenizer
 */
public data class Token(
    val id: Long,
    val text: String,
)
