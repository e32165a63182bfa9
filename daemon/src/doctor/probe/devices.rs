//! Devices: KVM, loop, the kernel log, GPUs.

use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::super::facts::{self, DeviceFacts, Gpu};

/// Vendor of NVIDIA on the PCI bus.
const NVIDIA: &str = "0x10de";
/// PCI class of displays and of 3D controllers: its first digits.
const DISPLAY_CLASS: &str = "0x03";

pub(super) fn look() -> DeviceFacts {
    let opens = |path: &str| std::fs::File::open(path).is_ok();
    DeviceFacts {
        has_kvm: std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok(),
        has_loop: Path::new("/dev/loop-control").exists(),
        has_kernel_log: opens("/dev/kmsg"),
        nvidia_cards: nvidia_cards(),
        nvidia_device_files: device_files(),
        nvml: nvml(),
    }
}

fn nvidia_cards() -> u32 {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let is_card = |dir: &Path| {
        let starts =
            |file: &str, with: &str| std::fs::read_to_string(dir.join(file)).is_ok_and(|t| t.starts_with(with));
        starts("vendor", NVIDIA) && starts("class", DISPLAY_CLASS)
    };
    u32::try_from(devices.filter(|device| is_card(&device.path())).count()).unwrap_or(u32::MAX)
}

/// Files `/dev/nvidia` and a number.
fn device_files() -> u32 {
    let files = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_device = |name: &str| {
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    };
    let count = files.filter(|file| file.file_name().to_str().is_some_and(is_device)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Asks NVIDIA's library, which is loaded for this and let go again.
fn nvml() -> facts::Nvml {
    let broken = |error: NvmlError| facts::Nvml::Broken(error.to_string());
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => return facts::Nvml::Absent,
        Err(error) => return broken(error),
    };
    let driver = match nvml.sys_driver_version() {
        Ok(driver) => driver,
        Err(error) => return broken(error),
    };
    match gpus(&nvml) {
        Ok(gpus) => facts::Nvml::Present { driver, gpus },
        Err(error) => broken(error),
    }
}

fn gpus(nvml: &Nvml) -> Result<Vec<Gpu>, NvmlError> {
    let one = |index| {
        let device = nvml.device_by_index(index)?;
        Ok(Gpu {
            name: device.name()?,
            memory_bytes: device.memory_info()?.total,
            // Cards that cannot be divided answer with "not supported".
            is_mig_enabled: device.mig_mode().ok().map(|mode| mode.current == 1),
        })
    };
    (0..nvml.device_count()?).map(one).collect()
}
