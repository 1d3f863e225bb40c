package ai.molkv.internal

import ai.molkv.TokenizerException
import java.nio.CharBuffer
import java.nio.charset.CharacterCodingException

/** Text to token ids, and the end of text. Closed after its streams. */
internal class Tokenizer private constructor(
    address: Long,
) : NativeHandle(address) {
    /** One more than the largest id. */
    val vocabularySize: Long get() = Native.tokenizerVocabularySize(address)

    val tokenCount: Long get() = Native.tokenizerTokenCount(address)

    /** The id that ends a text, or null. */
    val endOfText: Long?
        get() = Native.tokenizerFind(address, END_OF_TEXT.toByteArray()).takeIf { it >= 0 }

    /** @throws TokenizerException half a character pair, which UTF-8 cannot hold */
    fun encode(text: String): LongArray = typed { Native.tokenizerEncode(address, utf8(text)) }

    override fun release(address: Long): Unit = Native.tokenizerClose(address)

    private fun utf8(text: String): ByteArray =
        try {
            val bytes = Charsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text))
            ByteArray(bytes.remaining()).also { bytes.get(it) }
        } catch (_: CharacterCodingException) {
            throw TokenizerException(
                "the text has half of a surrogate pair",
                "pass text that UTF-8 can hold",
            )
        }

    companion object {
        private const val END_OF_TEXT = "<|endoftext|>"

        /** Reads a tokenizer.json; [place] is the file, for messages. */
        fun parse(
            place: String,
            json: ByteArray,
        ): Tokenizer =
            try {
                Tokenizer(Native.tokenizerParse(json))
            } catch (error: NativeException) {
                throw TokenizerException("$place: ${error.text}")
            }
    }
}

/** The text of tokens as they come, never half a character. */
internal class TextStream(
    tokenizer: Tokenizer,
) : NativeHandle(Native.streamCreate(tokenizer.address)) {
    /** Passes over a text's tokens: what a token adds may depend on the one before it. */
    fun skip(tokenIds: LongArray): Unit = tokenIds.forEach { push(it) }

    /** The whole characters that a token completes. */
    fun push(tokenId: Long): String = text(typed { Native.streamPush(address, tokenId) })

    /** What is left at the end. */
    fun finish(): String = text(typed { Native.streamFinish(address) })

    override fun release(address: Long): Unit = Native.streamFree(address)

    private fun text(bytes: ByteArray) = String(bytes, Charsets.UTF_8)
}
