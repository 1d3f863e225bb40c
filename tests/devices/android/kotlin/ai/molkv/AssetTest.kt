package ai.molkv

import ai.molkv.android.AssetFiles
import android.content.res.AssetManager
import kotlinx.coroutines.flow.toList
import org.junit.Test
import java.io.File
import kotlin.test.assertEquals

/** The bundle inside a real APK, which `molkv.app.apk` names. */
class AssetTest {
    @Test
    fun theBundleAmongTheAssetsIsReadInsideTheApk() =
        suspending {
            val cache = File.createTempFile("cache", "").apply { delete() }
            val options = GenerationOptions(12, stopIds = emptySet())
            val bundle = MolkvBundle.open(AssetFiles(AssetManager(), "bundle", cache))
            bundle.verifyExperts()
            bundle.openSession(SessionOptions(threads = 1)).use { session ->
                val expected =
                    withSession(TestFiles.bundle("tiny")) {
                        it.generate("The whale", options).toList()
                    }
                assertEquals(expected, session.generate("The whale", options).toList())
            }
            val copies = cache.walk().filter { it.isFile }.map { it.name }
            assertEquals(setOf("dense.onnx", "dense.onnx.data"), copies.toSet())
            cache.deleteRecursively()
        }
}
