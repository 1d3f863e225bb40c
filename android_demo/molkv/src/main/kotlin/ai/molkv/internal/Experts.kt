package ai.molkv.internal

import ai.molkv.FileRegion
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** What a blob's header says; sizes are in bytes. */
internal class BlobInfo(
    numbers: LongArray,
    val identity: String,
) {
    val layers = numbers[0]
    val experts = numbers[1]
    val keyHeads = numbers[2]
    val keySize = numbers[3]
    val valueSize = numbers[4]
    val keyType = DataType.of(numbers[5])
    val valueType = DataType.of(numbers[6])
    val vocabularySize = numbers[7]
    val rowStride = numbers[9]

    /** Of the input embedding that every row carries, [valueSize] elements; or none. */
    val embeddingType = DataType.of(numbers[10])
}

/** Element types of rows; their places are the numbers of molkv_data_type. */
internal enum class DataType(
    val label: String,
) {
    NONE("none"),
    FLOAT32("float32"),
    FLOAT16("float16"),
    INT8("int8"),
    INT4("int4"),
    ;

    companion object {
        fun of(number: Long): DataType = entries[number.toInt()]
    }
}

/** An open expert blob. One row is one token's experts of all layers, perhaps its embedding too. */
internal class ExpertBlob private constructor(
    address: Long,
) : NativeHandle(address) {
    val info: BlobInfo =
        BlobInfo(Native.blobInfo(address), hexadecimal(Native.blobIdentity(address)))

    /** Rows and bytes read since it was opened. */
    val read: Pair<Long, Long>
        get() = Native.blobStatistics(address).let { (rows, bytes) -> rows to bytes }

    /** A row's bytes without padding. */
    fun row(tokenId: Long): ByteArray = typed { Native.blobReadRow(address, tokenId) }

    /** Starts to read rows in the background. */
    fun prefetch(
        tokenIds: LongArray,
        first: Int,
        count: Int,
    ): Prefetch = Prefetch(typed { Native.prefetchStart(address, tokenIds, first, count) }, count)

    override fun release(address: Long): Unit = Native.blobClose(address)

    companion object {
        fun open(
            files: List<File>,
            readers: Int,
            resident: Boolean,
        ): ExpertBlob {
            val paths = Array(files.size) { files[it].path.toByteArray() }
            return ExpertBlob(typed { Native.blobOpen(paths, readers, resident) })
        }

        /** The descriptor is duplicated: the region may be closed at once. */
        fun open(
            region: FileRegion,
            readers: Int,
            resident: Boolean,
        ): ExpertBlob =
            ExpertBlob(
                typed {
                    Native.blobOpenDescriptor(
                        region.descriptor,
                        region.offset,
                        region.length,
                        readers,
                        resident,
                    )
                },
            )
    }
}

/** Rows that are being read ahead; closed before its blob. */
internal class Prefetch(
    address: Long,
    val count: Int,
) : NativeHandle(address) {
    override fun release(address: Long): Unit = Native.prefetchFree(address)
}

/** The last tokens' rows, in the planes that the graph reads; closed before its blob. */
internal class ExpertWindow(
    private val blob: ExpertBlob,
    size: Int,
    chunk: Int,
) : NativeHandle(typed { Native.windowCreate(blob.address, size, chunk) }) {
    private val row = NativeMemory(blob.info.rowStride)
    private val embeddingBytes = blob.info.valueSize * Float.SIZE_BYTES
    private val embeddings =
        if (blob.info.embeddingType == DataType.NONE) null else NativeMemory(chunk * embeddingBytes)

    val bytes: Long get() = Native.windowBytes(address)

    /** A number for the rows that the next step reads; the same number means the same memory. */
    val place: Long get() = Native.windowPlace(address)

    /** Reads one token's row and appends it. */
    fun append(tokenId: Long): Unit =
        typed {
            Native.windowAppendToken(
                address,
                blob.address,
                tokenId,
                row.buffer,
                embeddings?.buffer,
            )
        }

    /** Waits for rows and appends them. */
    fun append(rows: Prefetch): Unit =
        typed {
            Native.windowAppendPrefetch(
                address,
                blob.address,
                rows.address,
                rows.count,
                embeddings?.buffer,
            )
        }

    /** The rows of a plane that the next step reads, without a copy. */
    fun plane(plane: ExpertPlane): ByteBuffer =
        checkNotNull(typed { Native.windowPlane(address, plane.layer, plane.kind.ordinal) }) {
            "${plane.input}: the blob has no such plane"
        }.order(ByteOrder.nativeOrder())

    /** Input embeddings of the tokens of the last append, float32, overwritten by the next. */
    fun embeddings(count: Int): ByteBuffer {
        val memory = checkNotNull(embeddings) { "the blob's rows carry no embeddings" }.buffer
        val bytes = (count * embeddingBytes).toInt()
        return memory.duplicate().apply { limit(bytes) }.order(ByteOrder.nativeOrder())
    }

    fun reset(): Unit = Native.windowReset(address)

    override fun release(address: Long) {
        Native.windowFree(address)
        row.close()
        embeddings?.close()
    }
}

internal fun hexadecimal(bytes: ByteArray): String = bytes.joinToString("") { "%02x".format(it) }
