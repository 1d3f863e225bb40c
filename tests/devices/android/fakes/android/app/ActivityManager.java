package android.app;

public class ActivityManager {
  public static class MemoryInfo {
    public long availMem;
    public long totalMem;
    public boolean lowMemory;
  }

  public static long fakeAvailable = 4L << 30;

  public void getMemoryInfo(MemoryInfo info) {
    info.availMem = fakeAvailable;
    info.totalMem = 8L << 30;
    info.lowMemory = fakeAvailable < (200L << 20);
  }
}
