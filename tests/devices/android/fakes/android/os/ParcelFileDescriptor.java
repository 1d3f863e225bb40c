package android.os;

import java.io.Closeable;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.reflect.Field;

/** A real open file, by the number that the system gave it. */
public class ParcelFileDescriptor implements Closeable {
  public static final int MODE_READ_ONLY = 0x10000000;
  private final RandomAccessFile file;

  private ParcelFileDescriptor(RandomAccessFile file) { this.file = file; }
  public static ParcelFileDescriptor open(File file, int mode) throws FileNotFoundException {
    return new ParcelFileDescriptor(new RandomAccessFile(file, "r"));
  }
  public FileDescriptor getFileDescriptor() {
    try {
      return file.getFD();
    } catch (IOException error) {
      throw new IllegalStateException(error);
    }
  }
  public int getFd() {
    try {
      Field number = FileDescriptor.class.getDeclaredField("fd");
      number.setAccessible(true);
      return number.getInt(getFileDescriptor());
    } catch (ReflectiveOperationException error) {
      throw new IllegalStateException(error);
    }
  }
  public long getStatSize() {
    try {
      return file.length();
    } catch (IOException error) {
      return -1;
    }
  }
  @Override public void close() throws IOException { file.close(); }
}
