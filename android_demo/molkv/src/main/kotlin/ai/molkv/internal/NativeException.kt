package ai.molkv.internal

import ai.molkv.BlobFormatException
import ai.molkv.BundleException
import ai.molkv.InsufficientSpaceException
import ai.molkv.MolkvException
import ai.molkv.RowCorruptException
import ai.molkv.TokenIdException
import ai.molkv.UsageException

/**
 * A failure that the native core reports; libmolkv_jni makes it.
 *
 * @param message UTF-8; it names the file, the field, the value and the fix
 */
internal class NativeException(
    val status: Int,
    message: ByteArray,
) : RuntimeException(String(message, Charsets.UTF_8)) {
    val text: String get() = message.orEmpty()

    /** As the exception that callers of the library see; the numbers are molkv_status. */
    fun typed(): MolkvException =
        when (status) {
            2 -> BundleException(text, "", this)
            3, 7 -> BlobFormatException(text)
            4 -> RowCorruptException(text)
            5 -> TokenIdException(text)
            6 -> InsufficientSpaceException(text, "close other sessions, or use a smaller model")
            else -> UsageException(text)
        }
}

/** Runs native calls; their failures come out typed. */
internal inline fun <Result> typed(call: () -> Result): Result =
    try {
        call()
    } catch (error: NativeException) {
        throw error.typed()
    }
