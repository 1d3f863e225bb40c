package ai.molkv

import ai.molkv.android.DescriptorFiles
import android.os.ParcelFileDescriptor
import kotlinx.coroutines.flow.toList
import org.junit.Test
import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Bundles that are parts of open files, as Android hands them out. */
class DescriptorTest {
    private val bundle = TestFiles.bundle("small")
    private val options = GenerationOptions(12, stopIds = emptySet())

    /** All files of the bundle in one, one behind the other. */
    private fun container(): Pair<File, Map<String, LongRange>> {
        val file = File.createTempFile("container", "").apply { deleteOnExit() }
        val places = LinkedHashMap<String, LongRange>()
        file.outputStream().use { output ->
            var place = 0L
            for (part in checkNotNull(bundle.listFiles()).sorted()) {
                output.write(ByteArray(PADDING) { -1 })
                place += PADDING
                output.write(part.readBytes())
                places[part.name] = place until place + part.length()
                place += part.length()
            }
            output.write(ByteArray(PADDING) { -1 })
        }
        return file to places
    }

    private fun files(
        descriptor: ParcelFileDescriptor,
        places: Map<String, LongRange>,
    ) = DescriptorFiles(
        "container",
        File.createTempFile("cache", "").apply { delete() },
        places.mapValues { (_, place) ->
            DescriptorFiles.Region(descriptor, place.first, place.last + 1 - place.first)
        },
    )

    @Test
    fun oneDescriptorHoldsABundle() =
        suspending {
            val (file, places) = container()
            val expected =
                withSession(bundle) { it.generate("The whale", options).toList() }
            val descriptor = ParcelFileDescriptor.open(file, ParcelFileDescriptor.MODE_READ_ONLY)
            val opened = MolkvBundle.open(files(descriptor, places))
            opened.verifyExperts()
            val session = opened.openSession(SessionOptions(threads = 1))
            // The library has a descriptor of its own, and the file's name is of no matter.
            descriptor.close()
            file.delete()
            session.use { assertEquals(expected, it.generate("The whale", options).toList()) }
        }

    @Test
    fun aDamagedCopyOfTheGraphIsMadeAnew() =
        suspending {
            val (file, places) = container()
            ParcelFileDescriptor.open(file, ParcelFileDescriptor.MODE_READ_ONLY).use { descriptor ->
                val files = files(descriptor, places)
                val opened = MolkvBundle.open(files)
                opened.openSession().close()
                val copies =
                    files.cacheFolder
                        .walk()
                        .filter { it.isFile }
                        .toList()
                assertEquals(setOf("dense.onnx", "dense.onnx.data"), copies.map { it.name }.toSet())
                for (copy in copies) copy.writeBytes(ByteArray(copy.length().toInt()))
                opened.openSession().use { session ->
                    assertEquals(12, session.generate("The whale", options).toList().size)
                }
            }
        }

    @Test
    fun aWrongPlaceIsATypedError() =
        suspending {
            val (file, places) = container()
            ParcelFileDescriptor.open(file, ParcelFileDescriptor.MODE_READ_ONLY).use { descriptor ->
                val blob = places.getValue("experts.molkv")
                val moved = places + ("experts.molkv" to (blob.first - 1 until blob.last))
                val error =
                    assertFailsWith<BlobFormatException> {
                        MolkvBundle.open(files(descriptor, moved)).openSession()
                    }
                assertTrue("magic" in error.problem, error.problem)
                assertFailsWith<BundleException> {
                    MolkvBundle.open(files(descriptor, places - "golden.json"))
                }
            }
        }

    private companion object {
        const val PADDING = 4099
    }
}
