package ai.molkv.android

import ai.molkv.BundleFiles
import ai.molkv.FileRegion
import android.content.Context
import android.content.res.AssetManager
import java.io.File
import java.io.IOException
import java.io.InputStream

/**
 * A bundle among an app's assets.
 *
 * The expert blob is read where it is, inside the APK: it must be stored uncompressed there, which
 * `androidResources { noCompress += "molkv" }` does. The dense graph is copied to [cacheFolder]
 * when the first session is made, because ONNX Runtime opens paths only.
 *
 * @param folder the bundle's folder among the assets
 */
public class AssetFiles(
    private val assets: AssetManager,
    private val folder: String,
    override val cacheFolder: File,
) : BundleFiles {
    /** The graph is copied to the app's own folder that no backup takes along. */
    public constructor(context: Context, folder: String) :
        this(context.assets, folder, File(context.noBackupFilesDir, "molkv"))

    override val name: String get() = "assets/$folder"

    override fun size(file: String): Long? =
        try {
            region(file).use { it.length }
        } catch (_: IOException) {
            // Compressed files have no descriptor.
            sizeByReading(file)
        }

    override fun open(file: String): InputStream = assets.open("$folder/$file")

    override fun path(file: String): File? = null

    override fun region(file: String): FileRegion {
        val opened = assets.openFd("$folder/$file")
        return FileRegion(opened.parcelFileDescriptor.fd, opened.startOffset, opened.length, opened)
    }

    private fun sizeByReading(file: String): Long? =
        try {
            open(file).use { stream ->
                var size = 0L
                val part = ByteArray(PART_BYTES)
                while (true) {
                    val read = stream.read(part)
                    if (read < 0) break
                    size += read
                }
                size
            }
        } catch (_: IOException) {
            null
        }

    private companion object {
        const val PART_BYTES = 1 shl 16
    }
}
