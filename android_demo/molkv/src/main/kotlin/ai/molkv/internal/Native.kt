package ai.molkv.internal

import ai.molkv.NativeLibraryException
import java.nio.ByteBuffer

/**
 * The functions of libmolkv_jni. Handles are addresses, text is UTF-8 in byte arrays, and every
 * failure is a [NativeException]. native/include/molkv/molkv.h says what each does.
 */
internal object Native {
    private const val ABI_VERSION = 1

    /**
     * What ONNX Runtime loads; it is found by this name because it is loaded already: no constant,
     * which would not load it.
     */
    val operatorLibrary = "libmolkv_ort.so"

    init {
        try {
            System.loadLibrary("molkv_jni")
            System.loadLibrary("molkv_ort")
        } catch (error: UnsatisfiedLinkError) {
            throw NativeLibraryException(
                "the native libraries cannot be loaded: ${error.message}",
                "build the app for this device's ABI; arm64-v8a and x86_64 are supported",
                error,
            )
        }
        val version = abiVersion()
        if (version != ABI_VERSION) {
            throw NativeLibraryException(
                "libmolkv_jni has ABI version $version, this code needs $ABI_VERSION",
                "build both from one checkout",
            )
        }
    }

    @JvmStatic external fun abiVersion(): Int

    @JvmStatic external fun kernelName(): ByteArray

    @JvmStatic external fun allocate(bytes: Long): ByteBuffer

    @JvmStatic external fun free(buffer: ByteBuffer)

    @JvmStatic
    external fun blobOpen(
        paths: Array<ByteArray>,
        readers: Int,
        resident: Boolean,
    ): Long

    @JvmStatic
    external fun blobOpenDescriptor(
        descriptor: Int,
        offset: Long,
        length: Long,
        readers: Int,
        resident: Boolean,
    ): Long

    @JvmStatic external fun blobClose(blob: Long)

    @JvmStatic external fun blobInfo(blob: Long): LongArray

    @JvmStatic external fun blobIdentity(blob: Long): ByteArray

    @JvmStatic external fun blobStatistics(blob: Long): LongArray

    @JvmStatic
    external fun blobReadRow(
        blob: Long,
        tokenId: Long,
    ): ByteArray

    @JvmStatic
    external fun prefetchStart(
        blob: Long,
        tokenIds: LongArray,
        first: Int,
        count: Int,
    ): Long

    @JvmStatic external fun prefetchFree(prefetch: Long)

    @JvmStatic
    external fun windowCreate(
        blob: Long,
        size: Int,
        chunk: Int,
    ): Long

    @JvmStatic external fun windowFree(window: Long)

    @JvmStatic external fun windowReset(window: Long)

    @JvmStatic external fun windowBytes(window: Long): Long

    @JvmStatic external fun windowPlace(window: Long): Long

    @JvmStatic
    external fun windowPlane(
        window: Long,
        layer: Int,
        kind: Int,
    ): ByteBuffer?

    @JvmStatic
    external fun windowAppendToken(
        window: Long,
        blob: Long,
        tokenId: Long,
        row: ByteBuffer,
        embeddings: ByteBuffer?,
    )

    @JvmStatic
    external fun windowAppendPrefetch(
        window: Long,
        blob: Long,
        prefetch: Long,
        count: Int,
        embeddings: ByteBuffer?,
    )

    @JvmStatic
    external fun samplerCreate(
        temperature: Double,
        topK: Int,
        topP: Double,
        minP: Double,
        seed: Long,
    ): Long

    @JvmStatic external fun samplerFree(sampler: Long)

    @JvmStatic
    external fun samplerSample(
        sampler: Long,
        logits: ByteBuffer,
        vocabularySize: Int,
    ): Long

    @JvmStatic external fun tokenizerParse(json: ByteArray): Long

    @JvmStatic external fun tokenizerClose(tokenizer: Long)

    @JvmStatic external fun tokenizerVocabularySize(tokenizer: Long): Long

    @JvmStatic external fun tokenizerTokenCount(tokenizer: Long): Long

    @JvmStatic
    external fun tokenizerFind(
        tokenizer: Long,
        content: ByteArray,
    ): Long

    @JvmStatic
    external fun tokenizerEncode(
        tokenizer: Long,
        text: ByteArray,
    ): LongArray

    @JvmStatic external fun streamCreate(tokenizer: Long): Long

    @JvmStatic external fun streamFree(stream: Long)

    @JvmStatic
    external fun streamPush(
        stream: Long,
        tokenId: Long,
    ): ByteArray

    @JvmStatic external fun streamFinish(stream: Long): ByteArray
}
