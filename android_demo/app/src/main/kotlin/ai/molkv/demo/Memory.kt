package ai.molkv.demo

import android.app.ActivityManager
import android.content.Context
import java.io.File

/** What this process has, and what the device has left. */
object Memory {
    /** Bytes of this process that are in memory; 0 where the system does not say. */
    fun residentBytes(): Long {
        val lines = runCatching { File("/proc/self/status").readLines() }.getOrDefault(emptyList())
        val line = lines.firstOrNull { it.startsWith("VmRSS:") } ?: return 0
        return line.filter(Char::isDigit).toLong() shl 10
    }

    fun availableBytes(context: Context): Long {
        val manager = context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager
        return ActivityManager.MemoryInfo().also(manager::getMemoryInfo).availMem
    }
}
