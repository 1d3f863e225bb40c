package android.content.res;

import android.os.ParcelFileDescriptor;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.util.TreeSet;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/** The assets of a real APK, where they lie in it. */
public class AssetManager {
  private static File apk() throws FileNotFoundException {
    String path = System.getProperty("molkv.app.apk");
    if (path == null) throw new FileNotFoundException("there is no APK");
    return new File(path);
  }

  public InputStream open(String name) throws IOException {
    try (ZipFile zip = new ZipFile(apk())) {
      ZipEntry entry = zip.getEntry("assets/" + name);
      if (entry == null) throw new FileNotFoundException(name);
      byte[] content = new byte[(int) entry.getSize()];
      new java.io.DataInputStream(zip.getInputStream(entry)).readFully(content);
      return new ByteArrayInputStream(content);
    }
  }

  public String[] list(String folder) throws IOException {
    TreeSet<String> names = new TreeSet<>();
    if (System.getProperty("molkv.app.apk") == null) return new String[0];
    try (ZipFile zip = new ZipFile(apk())) {
      String prefix = "assets/" + folder + "/";
      zip.stream()
          .filter(entry -> entry.getName().startsWith(prefix))
          .forEach(entry -> names.add(entry.getName().substring(prefix.length())));
    }
    return names.toArray(new String[0]);
  }

  public AssetFileDescriptor openFd(String name) throws IOException {
    try (ZipFile zip = new ZipFile(apk())) {
      ZipEntry entry = zip.getEntry("assets/" + name);
      if (entry == null) throw new FileNotFoundException(name);
      if (entry.getMethod() != ZipEntry.STORED) {
        throw new FileNotFoundException(name + ": is compressed");
      }
      return new AssetFileDescriptor(
          ParcelFileDescriptor.open(apk(), ParcelFileDescriptor.MODE_READ_ONLY),
          offset("assets/" + name),
          entry.getSize());
    }
  }

  /** From the central directory to the local header, behind which the content begins. */
  private static long offset(String name) throws IOException {
    try (RandomAccessFile file = new RandomAccessFile(apk(), "r")) {
      long end = file.length() - 22;
      while (number(file, end, 4) != 0x06054b50) end--;
      long place = number(file, end + 16, 4);
      while (number(file, place, 4) == 0x02014b50) {
        int length = (int) number(file, place + 28, 2);
        byte[] text = new byte[length];
        file.seek(place + 46);
        file.readFully(text);
        if (new String(text, "UTF-8").equals(name)) {
          long local = number(file, place + 42, 4);
          return local + 30 + number(file, local + 26, 2) + number(file, local + 28, 2);
        }
        place += 46 + length + number(file, place + 30, 2) + number(file, place + 32, 2);
      }
      throw new FileNotFoundException(name);
    }
  }

  private static long number(RandomAccessFile file, long place, int bytes) throws IOException {
    file.seek(place);
    long value = 0;
    for (int i = 0; i < bytes; i++) value |= (long) file.read() << 8 * i;
    return value;
  }
}
