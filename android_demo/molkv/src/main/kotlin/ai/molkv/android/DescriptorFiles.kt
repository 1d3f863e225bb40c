package ai.molkv.android

import ai.molkv.BundleFiles
import ai.molkv.FileRegion
import android.os.ParcelFileDescriptor
import java.io.File
import java.io.FileInputStream
import java.io.FileNotFoundException
import java.io.InputStream
import java.nio.ByteBuffer

/**
 * A bundle whose files are open descriptors, such as another app hands out. Nothing is copied but
 * the dense graph, to [cacheFolder].
 *
 * @param name what to call it in messages
 * @param regions for each file an open descriptor and where in it the file is; they stay the
 *   caller's, to be closed when no session is made any more
 */
public class DescriptorFiles(
    override val name: String,
    override val cacheFolder: File,
    private val regions: Map<String, Region>,
) : BundleFiles {
    /** [length] bytes from [offset] of an open file. */
    public class Region(
        public val descriptor: ParcelFileDescriptor,
        public val offset: Long = 0,
        public val length: Long = descriptor.statSize,
    )

    override fun size(file: String): Long? = regions[file]?.length

    override fun open(file: String): InputStream {
        val region = found(file)
        return PositionalStream(region)
    }

    override fun path(file: String): File? = null

    override fun region(file: String): FileRegion {
        val region = found(file)
        return FileRegion(region.descriptor.fd, region.offset, region.length) {}
    }

    private fun found(file: String): Region =
        regions[file] ?: throw FileNotFoundException("$name/$file: No such file")

    /** Reads at positions of its own: several may read one descriptor at once. */
    private class PositionalStream(
        region: Region,
    ) : InputStream() {
        private val channel = FileInputStream(region.descriptor.fileDescriptor).channel
        private val end = region.offset + region.length
        private var position = region.offset

        override fun read(): Int {
            val one = ByteArray(1)
            return if (read(one, 0, 1) < 0) -1 else one[0].toInt() and 0xff
        }

        override fun read(
            buffer: ByteArray,
            offset: Int,
            length: Int,
        ): Int {
            if (position >= end) return -1
            val wanted = minOf(length.toLong(), end - position).toInt()
            val read = channel.read(ByteBuffer.wrap(buffer, offset, wanted), position)
            if (read > 0) position += read
            return read
        }
    }
}
